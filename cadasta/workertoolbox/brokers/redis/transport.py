"""kombu's Redis transport, with all copies of a publish in one step and in one round trip.

kombu asks Redis for the exchange's bindings with each publish and then pushes one copy after the
other. A publisher that dies in between leaves a task that runs and is not recorded; and each
publish waits three times where one wait is enough. Here a script on the server pushes all copies,
if the bindings are still those that the publisher last read; else it returns them, and nothing is
pushed. So a queue counts from the moment at which any process has bound it.

A Redis that answers nothing does not hold a publisher for ever, and what it may have is not
published again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha1
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps
from redis import exceptions

from ...errors import UnconfirmedError
from ...plain.forks import around_forks
from .connection import ConnectTimeoutError, bounded
from .tls import use_tls

logger = logging.getLogger(__name__)

#: KEYS: the exchange's bindings, the lists to push to, the lists whose expiry begins anew.
#: ARGV: the message, how many lists to push to, the hash of the bindings that the publisher knows
#: (empty: any), the expiries in milliseconds. It returns the bindings where they are others. Redis
#: lists a set's members in one order until the set changes or moves; then they are read once more.
PUBLISH = """
if ARGV[3] ~= '' then
  local bindings = redis.call('SMEMBERS', KEYS[1])
  if redis.sha1hex(table.concat(bindings, ' ')) ~= ARGV[3] then return bindings end
end
local last = 1 + tonumber(ARGV[2])
for i = 2, last do
  local done = redis.pcall('LPUSH', KEYS[i], ARGV[1])
  if type(done) == 'table' then return done end
end
for i = last + 1, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[3 + i - last]) end
return 1
"""
PUBLISH_HASH = sha1(PUBLISH.encode(), usedforsecurity=False).hexdigest()
#: In place of the hash of bindings that are not known.
UNKNOWN = "-"
#: How often bindings are read anew that change meanwhile; after it the message goes where the last
#: ones say, as with kombu's transport.
READINGS = 3
#: Bytes: the least and the usual value of Redis's ``proto-max-bulk-len``.
SMALLEST_LIMIT, USUAL_LIMIT = 1_048_576, 536_870_912


#: Messages that a worker was given and could not note, by their broker: queue, priority, tag, text.
_stranded: dict[Any, list[tuple[str, int, str, str]]] = {}


class QoS(kombu_redis.QoS):
    """Notes what was delivered, and loses nothing where that fails.

    A message is off its queue before it is noted, on another connection. kombu's own forgets it
    where that one leads nowhere, as when the host of Redis was replaced.
    """

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message.

        Raises:
            UnconfirmedError, RefusedError, redis.exceptions.ConnectionError: Redis is away. The
                message goes back to its queue with the next channel to this broker.
        """
        try:
            self._twice(lambda: kombu_redis.QoS.append(self, message, delivery_tag))
        except Exception:
            self.channel.strand(message, delivery_tag)
            raise

    def ack(self, delivery_tag: str) -> None:
        """Forget a message that is done."""
        self._twice(lambda: self._erase(delivery_tag))
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put a message back, or forget it."""
        if requeue:
            super().reject(delivery_tag, requeue=True)
        else:
            self.ack(delivery_tag)

    def _erase(self, delivery_tag: str) -> None:
        # No transaction: a server without memory takes none, and these free some.
        with self.channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            pipe.hdel(self.unacked_key, delivery_tag)
            pipe.zrem(self.unacked_index_key, delivery_tag)
            pipe.execute()

    def _twice(self, step: Callable[[], None]) -> None:
        """Do what may be done twice, the second time on a new connection, if need be."""
        try:
            step()
        except self.channel.connection_errors:
            self.channel.pool.disconnect(inuse_connections=False)
            step()


class ChannelMixin:
    """What differs from kombu's channel."""

    QoS = QoS

    #: Seconds that a publish may wait for Redis; the transport option of this name.
    confirm_timeout: float | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: By exchange: what Redis said of its bindings, hashed and read.
        self._tables: dict[str, tuple[str, list[Any]]] = {}
        self._shared: tuple[Any, Any] = (None, None)
        super().__init__(*args, **kwargs)
        self.restore_stranded()

    # -- publishing

    def basic_publish(
        self: Any,
        message: dict[str, Any],
        exchange: str,
        routing_key: str,
        confirm_timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Put a message into all its queues at once.

        Args:
            confirm_timeout: seconds to wait for Redis; default: the transport option of this name,
                and without it for ever.

        Raises:
            UnconfirmedError: Redis did not answer within ``confirm_timeout``. It is not published
                again, since Redis may have the message.
            redis.exceptions.ConnectionError, ConnectTimeoutError: there is no connection.
            RefusedError: the server refuses messages for now.
            redis.exceptions.DataError: the message is larger than Redis takes.
            kombu.exceptions.ChannelError: no queue is bound to the exchange of a task.
        """
        if kwargs.get("_publish_batch") is not None:
            return super().basic_publish(message, exchange, routing_key, **kwargs)  # type: ignore[misc]
        if exchange and self.typeof(exchange).type == "fanout":
            try:
                return super().basic_publish(message, exchange, routing_key, **kwargs)  # type: ignore[misc]
            except ConnectTimeoutError as exc:
                # An event, or a call of remote control. A worker would try again for ever, and do
                # nothing else; its heartbeat comes every two seconds.
                raise UnconfirmedError(str(exc)) from exc
        self._inplace_augment_message(message, exchange, routing_key)
        payload = dumps(message)
        priority = self._get_message_priority(message, reverse=False)
        limit = confirm_timeout or self.confirm_timeout or None
        connection = self.pool.get_connection()
        try:
            connection.check_health()
            for reading in range(READINGS + 1):
                known, queues = self._route(exchange, routing_key)
                if reading == READINGS:
                    known = ""
                if self._publish(connection, exchange, queues, priority, payload, known, limit):
                    break
        except exceptions.RedisError as exc:
            self._refuse_large(payload, exc)
            raise
        finally:
            self.pool.release(connection)
        if not queues and "task" in (message.get("headers") or ()):
            self._refuse_unknown(exchange)
        return None

    def _refuse_unknown(self: Any, exchange: str) -> None:
        """Say so where a task went to an exchange that nobody has bound a queue to.

        On Redis an exchange is its bindings: kombu's own transport drops the task without a word.
        """
        if not self.get_table(exchange):
            raise ChannelError(
                f"NOT_FOUND - no queue is bound to the exchange {exchange!r}: declare one first",
                (60, 40),
                "Channel.basic_publish",
                "404",
            )

    def _refuse_large(self: Any, payload: str, cause: exceptions.RedisError) -> None:
        """Say so where a failed publish was larger than Redis takes.

        Redis cuts the connection before it has read it all: it looks as if it went away.
        """
        if len(payload) <= SMALLEST_LIMIT:
            return
        try:
            with self.conn_or_acquire() as client:
                limit = int(client.config_get("proto-max-bulk-len")["proto-max-bulk-len"])
        except (exceptions.RedisError, UnconfirmedError, KeyError, ValueError):
            limit = USUAL_LIMIT  # hosted Redis forbids CONFIG
        if len(payload) > limit:
            raise exceptions.DataError(
                f"a message of {len(payload):,} bytes; Redis takes {limit:,} (proto-max-bulk-len). "
                "Keep large values elsewhere, and pass their place."
            ) from cause

    def _route(self: Any, exchange: str, routing_key: str) -> tuple[str, list[str]]:
        """The hash of the bindings that are known, and the queues that they lead to."""
        if not exchange:
            return "", [routing_key]
        if exchange not in self._tables:
            return UNKNOWN, []
        known, table = self._tables[exchange]
        table = [*{*table, *self.connection.bound.get(exchange, ())}]
        queues = self.typeof(exchange).lookup(table, exchange, routing_key, None)
        if not queues and self.deadletter_queue is not None:
            queues = self._lookup(exchange, routing_key)
        return known, [queue for queue in queues if queue]

    def _publish(
        self: Any,
        connection: Any,
        exchange: str,
        queues: list[str],
        priority: int,
        payload: str,
        known: str,
        limit: float | None,
    ) -> bool:
        """Run the script; False where the bindings were not the known ones, which are read now."""
        lists = [self._q_for_pri(queue, priority) for queue in queues]
        expiring = {
            self._q_for_pri(queue, step): self._expires[queue]
            for queue in queues
            if queue in self._expires
            for step in self.priority_steps
        }
        keys = (self.keyprefix_queue % exchange, *lists, *expiring)
        arguments = (
            *(len(keys), *(self.global_keyprefix + key for key in keys)),
            *(payload, len(lists), known, *expiring.values()),
        )
        try:
            try:
                found = connection.call(limit, "EVALSHA", PUBLISH_HASH, *arguments)
            except exceptions.NoScriptError:  # a server that has not run it since its start
                found = connection.call(limit, "EVAL", PUBLISH, *arguments)
        except ConnectTimeoutError:
            raise
        except exceptions.TimeoutError as exc:
            raise UnconfirmedError(
                f"Redis did not answer a publish within {limit:g} seconds; it may have the message "
                f"all the same, so it is not sent again."
            ) from exc
        if not isinstance(found, list):
            return True
        digest = sha1(b" ".join(found), usedforsecurity=False).hexdigest()
        table = [tuple(bytes_to_str(member).split(self.sep)) for member in found]
        self._tables[exchange] = (digest, table)
        return False

    # -- bindings

    def get_table(self: Any, exchange: str) -> list[Any]:
        """The bindings of ``exchange``: this connection's own, and those that Redis holds."""
        # Redis may have lost them (an eviction, a flush); our own are still true.
        return [*{*self.connection.bound.get(exchange, ()), *super().get_table(exchange)}]  # type: ignore[misc]

    def _queue_bind(self: Any, exchange: str, *meta: Any) -> None:
        super()._queue_bind(exchange, *meta)  # type: ignore[misc]
        self.connection.bound.setdefault(exchange, set()).add(tuple(part or "" for part in meta))

    def queue_unbind(
        self: Any, queue: str, exchange: str = "", routing_key: str = "", *args: Any, **kwargs: Any
    ) -> Any:
        """Undo a binding; kombu's leaves it in Redis."""
        meta = self.typeof(exchange).prepare_bind(queue, exchange, routing_key, None)
        member = self.sep.join(part or "" for part in meta)
        with self.conn_or_acquire() as client:
            client.srem(self.keyprefix_queue % (exchange,), member)
            client.srem(self.keyprefix_binding_permanent % (exchange,), member)
        self._forget(exchange, meta)
        return super().queue_unbind(queue, exchange, routing_key, *args, **kwargs)  # type: ignore[misc]

    def _delete(self: Any, queue: str, exchange: str, *meta: Any, **kwargs: Any) -> Any:
        self._forget(exchange, meta)
        return super()._delete(queue, exchange, *meta, **kwargs)  # type: ignore[misc]

    def _forget(self: Any, exchange: str, meta: Any) -> None:
        self.connection.bound.get(exchange, set()).discard(tuple(part or "" for part in meta[:3]))

    # -- consuming

    @property
    def broker(self: Any) -> Any:
        """What tells it from other brokers."""
        client = self.connection.client
        urls = client.alt or [client.as_uri(include_password=True)]
        return (*urls, self.global_keyprefix)

    def strand(self: Any, message: Any, delivery_tag: str) -> None:
        """Keep a message that is off its queue and could not be noted."""
        raw = message._raw
        queue = self.connection.delivering
        priority = self._get_message_priority(raw, reverse=False)
        logger.warning("Redis is away; a message of %s goes back to its queue later", queue)
        around_forks(after_in_child=_stranded.clear)  # the parent puts its own back
        _stranded.setdefault(self.broker, []).append((queue, priority, delivery_tag, dumps(raw)))

    def close(self: Any) -> None:
        """Close it; what is under way may still bring a message, if somebody answers soon."""
        connection = self._in_poll
        if connection and connection._sock is not None:
            self._closing = True
            limit = connection.connect_timeout
            connection._sock.settimeout(limit and self.brpop_timeout and limit + self.brpop_timeout)
            try:
                self._brpop_read()
            except (Empty, *self.connection_errors) as exc:
                logger.debug("No message came at the end: %s", type(exc).__name__)
        super().close()  # type: ignore[misc]

    def basic_get(self: Any, queue: str, *args: Any, **kwargs: Any) -> Any:
        """One message of a queue, or None."""
        self.connection.delivering = queue
        return super().basic_get(queue, *args, **kwargs)  # type: ignore[misc]

    def restore_stranded(self: Any) -> None:
        """Put back what earlier channels of this process could not note."""
        # Taken in one step: another thread may open a channel at the same time.
        stranded = _stranded.pop(self.broker, [])
        try:
            while stranded:
                queue, priority, tag, text = stranded[-1]
                with self.conn_or_acquire() as client, client.pipeline() as pipe:
                    pipe.zrem(self.unacked_index_key, tag)
                    pipe.hdel(self.unacked_key, tag)
                    pipe.rpush(self._q_for_pri(queue, priority), text)
                    pipe.execute()
                stranded.pop()
        except Exception as exc:  # the channel is of use all the same
            _stranded.setdefault(self.broker, []).extend(stranded)
            logger.warning(
                "%d messages wait for another connection to go back to their queues (%s)",
                len(stranded),
                type(exc).__name__,
            )

    # -- connections

    @contextmanager
    def conn_or_acquire(self: Any, client: Any = None) -> Iterator[Any]:
        """A client for commands that do not wait for messages.

        Raises:
            UnconfirmedError: a command was not answered within ``socket_timeout``.
        """
        if self._shared[0] is not self.pool:
            self._shared = (self.pool, self._create_client())
        try:
            yield client or self._shared[1]
        except ConnectTimeoutError:
            raise
        except exceptions.TimeoutError as exc:
            self.pool.disconnect(inuse_connections=False)  # the others lead to the same host
            # kombu would send it again.
            raise UnconfirmedError(
                f"Redis did not answer within {self.socket_timeout or 0:g} seconds."
            ) from exc

    def _connparams(self: Any, asynchronous: bool = False) -> dict[str, Any]:
        params: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]
        params["connection_class"] = bounded(params["connection_class"], watched=asynchronous)
        if asynchronous and params["socket_timeout"]:
            # What waits for a message is answered after ``brpop_timeout`` at the latest.
            waits = self.brpop_timeout
            params["socket_timeout"] = params["socket_timeout"] + waits if waits else None
        return params


class Channel(ChannelMixin, kombu_redis.Channel):
    """A channel to one Redis server."""

    from_transport_options = (*kombu_redis.Channel.from_transport_options, "confirm_timeout")


class TransportMixin:
    """What differs from kombu's transports."""

    # What was not answered is tried again by whoever consumes, and not by a publisher.
    connection_errors = (*kombu_redis.Transport.connection_errors, UnconfirmedError)
    recoverable_connection_errors = kombu_redis.Transport.connection_errors
    # None: the same message would be refused again, or be in one of its queues twice.
    recoverable_channel_errors = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: What this connection has bound: routing key, pattern and queue, by exchange.
        self.bound: dict[str, set[tuple[str, ...]]] = {}
        #: The queue of the message that is being delivered.
        self.delivering = ""
        super().__init__(*args, **kwargs)

    def _deliver(self, message: Any, queue: str) -> None:
        self.delivering = queue
        super()._deliver(message, queue)  # type: ignore[misc]


class Transport(TransportMixin, kombu_redis.Transport):
    """The transport to one Redis server."""

    Channel = Channel


class SSLTransport(Transport):
    """The transport to one Redis server by TLS, for ``rediss://``."""

    def __init__(self, client: Any, **kwargs: Any) -> None:
        use_tls(client)
        super().__init__(client, **kwargs)


class SentinelChannel(ChannelMixin, kombu_redis.SentinelChannel):
    """A channel to the master that Redis Sentinel names."""

    from_transport_options = (
        *kombu_redis.SentinelChannel.from_transport_options,
        "confirm_timeout",
    )
    sentinel_kwargs: dict[str, Any] | None = None

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        # A sentinel that stands still takes connections all the same.
        limit = self.socket_connect_timeout or self.socket_timeout
        limits = {"socket_timeout": limit, "socket_connect_timeout": limit}
        self.sentinel_kwargs = {**limits, **(self.sentinel_kwargs or {})}
        return super()._sentinel_managed_pool(asynchronous)


class SentinelTransport(TransportMixin, kombu_redis.SentinelTransport):
    """The transport to the master that Redis Sentinel names."""

    Channel = SentinelChannel
