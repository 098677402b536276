"""The embedded broker: a kombu virtual transport that keeps its messages in one SQLite file.

It needs no server and is for one machine (Linux, macOS): neither SQLite's shared memory nor the
consumers' named pipes cross a network.

The URL is written as SQLAlchemy writes SQLite's: `embedded:////absolute/path/broker.sqlite3` (four
slashes) or `embedded:///relative/path` (three); `url_for(path)` builds it. Beside the file lie
SQLite's own `-wal` and `-shm`, and a folder `-consumers` with a named pipe for each consumer.

Transport options (`broker_transport_options`):
- `visibility_timeout` (seconds, default 3600): a message that was taken and not acknowledged for
  so long is delivered again, also when its consumer still works on it;
- `detect_dead_consumers` (default True): what a dead process had taken is delivered again within
  about a second. The kernel tells, so a slow or a stopped process is never taken for dead. False:
  only after the visibility timeout;
- `busy_timeout` (seconds, default 10): how long to wait for the file's write lock;
- `synchronous` (default "NORMAL"): as SQLite's pragma. With NORMAL, a publish that returned
  outlives any process; with "FULL" also a power cut, for one disk flush a publish.

Delivery is at least once; each queue is first in, first out, the higher `priority` (0 to 9) first.
Arguments of queues (expiry, length, time to live) are ignored. Errors: a `BrokerError` is for good
(no database, no right to write), a `BrokerUnavailableError` passes (locked, disk full): Celery and
kombu try again after it alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from amqp.protocol import queue_declare_ok_t
from kombu.exceptions import ChannelError
from kombu.transport import virtual
from kombu.transport.virtual.exchange import STANDARD_EXCHANGE_TYPES
from kombu.utils.json import dumps, loads
from kombu.utils.uuid import uuid

from ...errors import BrokerUnavailableError
from .file import path_of, url_for
from .store import BATCH, QoS, Row, Store

__all__ = ["BrokerUnavailableError", "Channel", "Transport", "path_of", "url_for"]

LINGER = 0.005  # seconds a consumer stays up for a next message before it asks to be woken
ROUND = 1.0  # seconds between two looks for messages of dead or overdue consumers
VISIBILITY_TIMEOUT = 3600.0  # seconds


class Channel(virtual.Channel):
    """A channel: publishes, and hands out the messages that it took, one an event."""

    QoS = QoS
    supports_fanout = True

    def __init__(self, connection: Transport, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.store = connection.store
        self._listeners: dict[str, tuple[str, bool, Callable[[Any], Any]]] = {}
        self._taken: deque[tuple[int, Row]] = deque()  # with their tags, not yet handed out
        self._turn = 0

    # -- topology

    def exchange_declare(
        self, exchange: str = "", type: str = "", *_: Any, passive: bool = False, **kwargs: Any
    ) -> None:
        """Make an exchange; ChannelError if it is there with another type."""
        type = type or "direct"
        exchange = exchange or f"amq.{type}"
        query = "SELECT type FROM exchange WHERE name=?"
        found = self.store.rows(query, exchange)
        if passive:
            if not found:
                raise self._not_found("exchange", exchange)
            return
        if type not in STANDARD_EXCHANGE_TYPES:
            raise ChannelError(f"Exchange {exchange!r}: no type {type!r}, use topic or direct")
        if not found:
            insert = "INSERT OR IGNORE INTO exchange VALUES (?, ?)"
            self.store.change_topology((insert, exchange, type))
            found = self.store.rows(query, exchange)
        if found[0][0] != type:
            raise ChannelError(
                f"PRECONDITION_FAILED - exchange {exchange!r} in {self.store.path} is of type "
                f"{found[0][0]}, not {type}"
            )

    def exchange_delete(self, exchange: str, *_: Any, **kwargs: Any) -> None:
        """Delete an exchange and its bindings."""
        self.store.change_topology(
            ("DELETE FROM binding WHERE exchange=?", exchange),
            ("DELETE FROM exchange WHERE name=?", exchange),
        )

    def queue_declare(
        self, queue: str = "", passive: bool = False, **kwargs: Any
    ) -> queue_declare_ok_t:
        """Make a queue; one with `exclusive` or `auto_delete` goes with its last consumer."""
        queue = queue or f"amq.gen-{uuid()}"
        if not self.store.rows("SELECT 1 FROM queue WHERE name=?", queue):
            if passive:
                raise self._not_found("queue", queue)
            insert = "INSERT OR IGNORE INTO queue VALUES (?, ?)"
            temporary = bool(kwargs.get("exclusive") or kwargs.get("auto_delete"))
            self.store.change_topology((insert, queue, temporary))
        return queue_declare_ok_t(queue, self.store.size(queue), 0)

    def queue_bind(
        self, queue: str, exchange: str = "", routing_key: str = "", *_: Any, **kwargs: Any
    ) -> None:
        """Bind a queue to an exchange; ChannelError if there is no such exchange."""
        binding = (exchange or "amq.direct", routing_key or "", queue)
        query = "SELECT 1 FROM binding WHERE exchange=? AND routing_key=? AND queue=?"
        if not self.store.rows(query, *binding):
            if not self.store.rows("SELECT 1 FROM exchange WHERE name=?", binding[0]):
                raise self._not_found("exchange", binding[0])
            insert = "INSERT OR IGNORE INTO binding VALUES (?, ?, ?)"
            self.store.change_topology((insert, *binding))

    def queue_unbind(
        self, queue: str, exchange: str = "", routing_key: str = "", *_: Any, **kwargs: Any
    ) -> None:
        """Undo a binding."""
        delete = "DELETE FROM binding WHERE exchange=? AND routing_key=? AND queue=?"
        self.store.change_topology((delete, exchange or "amq.direct", routing_key or "", queue))

    def queue_delete(self, queue: str, *_: Any, if_empty: bool = False, **kwargs: Any) -> None:
        """Delete a queue with its messages and bindings, unless `if_empty` and it is not."""
        if not (if_empty and self.store.size(queue)):
            self.store.delete_queue(queue)

    def list_bindings(self) -> Iterator[tuple[str, str, str]]:
        """Return queue, exchange and routing key of each binding."""
        return iter(self.store.rows("SELECT queue, exchange, routing_key FROM binding"))

    def get_exchanges(self) -> list[str]:
        """Return the names of the exchanges."""
        return [name for (name,) in self.store.rows("SELECT name FROM exchange")]

    def _not_found(self, what: str, name: str) -> ChannelError:
        text = f"NOT_FOUND - no {what} {name!r} in {self.store.path}"
        return ChannelError(text, (50, 10), f"Channel.{what}_declare", "404")

    def _size(self, queue: str) -> int:
        return self.store.size(queue)

    def _purge(self, queue: str) -> int:
        return self.store.purge(queue)

    # -- publishing

    def basic_publish(
        self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any
    ) -> None:
        """Put the message into all its queues at once; it is there when this returns."""
        message["properties"]["delivery_info"].update(exchange=exchange, routing_key=routing_key)
        head = {key: value for key, value in message.items() if key != "body"}
        body = message["body"]
        if not isinstance(body, str):
            body = bytes(body)
        priority = self._get_message_priority(message)
        self.store.publish(exchange or "", routing_key or "", priority, dumps(head), body)

    # -- consuming

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **_: Any
    ) -> None:
        """Consume from a queue."""
        self.store.join()
        self.store.hold(queue)
        self._listeners[consumer_tag] = (queue, no_ack, callback)
        self._consumers.add(consumer_tag)
        self.connection.announced = False

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop consuming; what was taken and not handed out goes back."""
        if consumer_tag not in self._consumers:
            return
        self._consumers.discard(consumer_tag)
        queue, _, _ = self._listeners.pop(consumer_tag)
        if queue not in self.queues():
            self.qos.put_back(list(self.unseen(queue)), redelivered=False)
            self._taken = deque(item for item in self._taken if item[1].queue != queue)
        if not any(queue in channel.queues() for channel in self.connection.channels):
            self.store.release(queue)

    def queues(self) -> list[str]:
        """Return the queues that are consumed from."""
        return list(dict.fromkeys(queue for queue, _, _ in self._listeners.values()))

    def unseen(self, queue: str | None = None) -> set[int]:
        """Return the tags of what was taken, from `queue` or any, and not yet handed out."""
        return {tag for tag, row in self._taken if queue in (None, row.queue)}

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Return one message, or None."""
        self.store.join()
        self.connection.look_after_others()
        for row in self.store.take([queue], 1, self.connection.visibility_timeout):
            return self._message(self.qos.add(row), row, no_ack)
        return None

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Acknowledge a message, or with `multiple` all of this channel up to it, at once."""
        self.qos.ack(delivery_tag, multiple)

    def deliver(self) -> bool:
        """Hand out one message; False if there is none, or no room in the prefetch window."""
        if not self._taken and self._listeners:
            self._take()
        if not self._taken:
            return False
        tag, row = self._taken.popleft()
        for queue, no_ack, callback in list(self._listeners.values()):
            if queue == row.queue:
                callback(self._message(tag, row, no_ack))
                return True
        raise AssertionError("a message of a queue that is not consumed from")

    def _take(self) -> None:
        # The store's lock: another thread may acknowledge meanwhile.
        with self.store.lock:
            most = self.qos.can_consume_max_estimate()
            queues = self.queues()
            if most and queues:
                self._turn = (self._turn + 1) % len(queues)  # so that no queue starves another
                queues = queues[self._turn :] + queues[: self._turn]
                for row in self.store.take(queues, most, self.connection.visibility_timeout):
                    self._taken.append((self.qos.add(row), row))

    def _message(self, tag: int, row: Row, no_ack: bool) -> Any:
        payload = {**loads(row.head), "body": row.body}
        properties = payload["properties"]
        properties["delivery_tag"] = tag
        properties["delivery_info"]["redelivered"] = bool(row.redelivered)
        if no_ack:
            self.qos.ack(tag)
        return self.Message(payload, channel=self)


class Transport(virtual.Transport):
    """The transport of the embedded broker: one connection to its file."""

    Channel = Channel
    can_parse_url = True
    driver_type = "embedded"
    driver_name = "sqlite3"
    default_connection_params: dict[str, Any] = {}
    implements = virtual.Transport.implements.extend(
        asynchronous=True, exchange_type=frozenset(STANDARD_EXCHANGE_TYPES)
    )
    # A BrokerError that is none of these stays wrong however often one tries.
    connection_errors: Any = (*virtual.Transport.connection_errors, BrokerUnavailableError)
    recoverable_connection_errors = (BrokerUnavailableError,)
    recoverable_channel_errors = ()

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        options = client.transport_options
        self._url = client.hostname or ""
        self._options = {k: options[k] for k in ("busy_timeout", "synchronous") if k in options}
        self.visibility_timeout = float(options.get("visibility_timeout") or VISIBILITY_TIMEOUT)
        self.detect_dead_consumers = bool(options.get("detect_dead_consumers", True))
        self.announced = False  # whether the next message will wake us
        self._next_round = 0.0
        self._next_channel = 0
        self._loop: Any = None  # Celery's event loop, where there is one, and what it runs of us
        self._timer: Any = None
        self._lingering = False
        self._seen = -1  # how many writes there were when last no message was found

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return the URL as it is: there is nothing secret in it."""
        return uri

    def establish_connection(self) -> Transport:
        """Open the file, and make it if it is not there; BrokerError if it cannot be used."""
        self.store = Store(path_of(self._url), **self._options)
        self.store.rows("SELECT version FROM topology")
        super().establish_connection()
        return self

    def close_connection(self, connection: Any) -> None:
        """Put back what is not acknowledged, and close the file."""
        if self._loop is not None and self.store.pipe is not None:
            self._loop.on_tick.discard(self._on_tick)
            self._loop.remove_reader(self.store.pipe.read)
            self._timer.cancel()
        try:
            super().close_connection(connection)
        finally:
            self.store.leave()
            self.store.close()

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Hand out one message; wait for it up to `timeout` seconds (None: for ever).

        Raises TimeoutError, which socket.timeout is.
        """
        give_up = float("inf") if timeout is None else monotonic() + timeout
        lingered = False
        while True:
            writes = self.store.writes
            self.look_after_others()
            if self._deliver_next():
                return
            if (left := give_up - monotonic()) <= 0:
                raise TimeoutError
            if not lingered:
                lingered, nap = True, LINGER
            elif not self.announced:
                self._announce()
                continue  # a message may have come just before
            else:
                nap = max(0.0, self._next_round - monotonic())
            if self.store.doze(writes, min(nap, left)):
                self.announced = False

    def look_after_others(self) -> None:
        """Once a second: put back what dead consumers had taken, and what is overdue."""
        if monotonic() >= self._next_round:
            self._next_round = monotonic() + ROUND
            self.store.recover(self.detect_dead_consumers)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Hand out messages from Celery's event loop, each time before it sleeps."""
        self._loop = loop
        loop.add_reader(self.store.join().read, self._on_ring)
        loop.on_tick.add(self._on_tick)
        self._timer = loop.call_repeatedly(ROUND, self._on_round)

    def _on_tick(self) -> None:
        if self.store.writes == self._seen:
            return
        for _ in range(BATCH):
            seen = self.store.writes
            if not self._deliver_next():
                self._seen = seen
                break
        if not (self.announced or self._lingering):
            # Comes back by `_on_ring`: the loop has set already how long it sleeps.
            self.store.join().ring()

    def _on_ring(self) -> None:
        self.store.join().clear()
        self.announced, self._seen = False, -1
        if not self._lingering:
            self._lingering = True
            self._loop.call_later(LINGER, self._on_lingered)

    def _on_lingered(self) -> None:
        self._lingering = False
        if not self.announced:
            self._announce()

    def _on_round(self) -> None:
        self._seen = -1
        self.store.recover(self.detect_dead_consumers)

    def _announce(self) -> None:
        hungry = [channel for channel in self.channels if channel.qos.can_consume()]
        self.store.await_messages({queue for each in hungry for queue in each.queues()})
        self.announced, self._seen = True, -1

    def _deliver_next(self) -> bool:
        channels = list(self.channels)
        for offset in range(len(channels)):
            turn = (self._next_channel + offset) % len(channels)
            if channels[turn].deliver():
                self._next_channel = turn + 1
                self.announced = False
                return True
        return False
