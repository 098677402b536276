"""The monitor: moves every message of the monitor queue into the ledger.

It writes a batch in one transaction, and only then acknowledges its messages. Whatever dies in
between, the broker delivers them again, and the ledger takes a message twice without a trace.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from kombu import Consumer

from ..brokers.kinds import broker_of_connection
from ..brokers.transports import stay_on
from ..errors import ConfigError, MessageError
from ..ledger.ledger import Ledger
from ..ledger.model import Undecodable
from ..messages.decoding import TaskRecord, decode
from ..messages.policy import StoragePolicy, records_ignored
from ..plain.backoff import Backoff
from ..routing.router import router_of
from .refusals import Refusals
from .writer import FIRST_RETRY, LONGEST_RETRY, Batch, Writer, shown

logger = logging.getLogger(__name__)

#: Seconds of one look at the broker while nothing is held.
IDLE_WAIT = 1.0
#: Seconds of one look while the writer is busy: what it has written is acknowledged after it.
BUSY_WAIT = 0.002
MIN_WAIT = 0.001
#: Seconds between two looks at the broker's heartbeats.
BEAT = 1.0
#: How much of a message that is no task message is stored, in bytes.
MAX_STORED_BODY = 65_536
#: Headers and properties that differ each time that a broker delivers a message.
_OF_ONE_DELIVERY = frozenset(
    ("x-delivery-count", "x-acquired-count", "redelivered", "delivery_info", "delivery_tag")
)
#: How many batches may be on their way from the broker.
PREFETCH_BATCHES = 8
#: The largest prefetch count that AMQP can say.
MAX_PREFETCH = 65_535


class Monitor:
    """Consumes the monitor queue of ``app`` into its ledger, until it is stopped.

    Args:
        app: an app that is configured by ``Config``.
        batch: messages of one transaction; default ``MONITOR_BATCH`` (500).
        interval: seconds after which a smaller batch is written; default ``MONITOR_INTERVAL``
            (0.5).
        ledger: where to write; default: the app's.

    Raises:
        ConfigError: the app is not configured by the toolbox.
        LedgerError: no database is named.
    """

    def __init__(
        self,
        app: Any,
        *,
        batch: int | None = None,
        interval: float | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.app = app
        self.queue = router_of(app).monitor
        self.batch = batch or app.conf.MONITOR_BATCH
        self.interval = interval or app.conf.MONITOR_INTERVAL
        self.ledger = ledger or Ledger.from_app(app)
        self.policy = policy_of(app)
        self._ignoring = ignoring(app)
        #: How many messages have been recorded and acknowledged since the start.
        self.recorded = 0
        with app.connection_for_read() as connection:  # which opens none
            self._broker = broker_of_connection(connection)
        self._writer = Writer(self.ledger)
        self._batch = Batch(None)
        self._refusals = Refusals()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Let :meth:`run` write what is held, acknowledge it and return; safe in a handler."""
        self.ledger.hurry()
        self._stopping.set()

    def run(self) -> None:
        """Consume until :meth:`stop`, through outages of broker and database.

        Raises:
            BrokerError: the broker refuses again and again what no waiting mends.
        """
        self._writer.start()
        retry = Backoff(FIRST_RETRY, LONGEST_RETRY)
        while not self._stopping.is_set():
            connection = self._connection()
            try:
                connection.ensure_connection(
                    errback=partial(self._go_on, connection),
                    max_retries=max(0, len(connection.alt) - 1),  # each host of a list
                    interval_start=0,
                    reraise_as_library_errors=False,
                )
                retry.reset()
                logger.info("Recording %s of %s", self.queue.name, connection.shown_uri())
                self._consume(connection)
            except _Stopping:
                break
            except _broker_errors(connection) as exc:
                self._refusals.count(exc, connection)
                wait = retry.next()
                _log_away(connection, exc, f"next attempt in {wait:.1f} s")
                self._stopping.wait(wait)
            finally:
                _close(connection)
        self._writer.stop()
        self.ledger.hurry(False)
        logger.info("Stopped; %d messages recorded", self.recorded)

    def _go_on(self, connection: Any, exc: Exception, _: float) -> None:
        """Log that a host of several cannot be used; raises _Stopping where no more is needed."""
        _log_away(connection, exc, "trying the next one")
        if self._stopping.is_set():
            raise _Stopping

    def _connection(self) -> Any:
        """A connection on which an acknowledgement touches the monitor's messages alone."""
        connection = self.app.connection_for_read(heartbeat=self.app.conf.broker_heartbeat)
        options = {"max_retries": 0, **self._broker.monitor_options(connection.transport_options)}
        transport = self._broker.monitor_transport(connection)
        connection.transport_options = {**connection.transport_options, **options}
        stay_on(connection, transport)
        return connection

    def _consume(self, connection: Any) -> None:
        channel = connection.default_channel
        # What an earlier channel delivered comes again on this one.
        self._writer.drop_waiting()
        self._batch = Batch(channel)
        self._broker.tolerate_messages(channel)
        self.queue(channel).declare()
        channel.basic_qos(0, min(PREFETCH_BATCHES * self.batch, MAX_PREFETCH), False)
        consumer = Consumer(
            channel, [self.queue(channel)], on_message=self._take, auto_declare=False
        )
        consumer.on_decode_error = self._take_broken
        consumer.consume()
        self._refusals.forget()
        received = self._broker.buffer_reads(connection)
        due: float | None = None
        beat = 0.0
        while not self._stopping.is_set():
            if self._writer.has_written:
                self._acknowledge_written(channel)
            now = time.monotonic()
            if now >= beat:  # also while messages come without a pause
                connection.heartbeat_check()
                beat = now + BEAT
            if self._batch and due is None:
                due = now + self.interval
            if due is not None and (now >= due or len(self._batch) >= self.batch):
                self._submit()
                due = None
            wait: float | None = IDLE_WAIT if due is None else max(MIN_WAIT, due - now)
            if received is not None and received.has_more:
                wait = None
            elif self._writer.is_busy:
                wait = BUSY_WAIT
            try:
                connection.drain_events(timeout=wait)
            except TimeoutError:
                pass  # Nothing came.
        self._finish(channel)

    def _submit(self) -> None:
        self._writer.submit(self._batch)
        self._batch = Batch(self._batch.channel)

    def _finish(self, channel: Any) -> None:
        """Write and acknowledge everything that is held, if the database lets us."""
        self._submit()
        self._writer.stop()
        self._acknowledge_written(channel)

    def _acknowledge_written(self, channel: Any) -> None:
        for batch in self._writer.take_written():
            self.recorded += len(batch)
            # The tags of a channel that is gone mean nothing.
            if batch.tags and batch.channel is channel:
                self._broker.acknowledge(channel, batch.tags)

    def _take(self, message: Any) -> None:
        """Decode one message and hold it; nothing in it may stop the monitor."""
        info = message.delivery_info or {}
        item: TaskRecord | Undecodable
        try:
            item = decode(
                message.body,
                content_type=message.content_type,
                headers=message.headers,
                properties=message.properties,
                exchange=info.get("exchange"),
                routing_key=info.get("routing_key"),
                policy=self.policy,
                ignoring=self._ignoring,
            )
        except Exception as exc:
            item = undecodable(message, exc, self.policy)
        self._hold(message, item)

    def _take_broken(self, message: Any, exc: Exception) -> None:
        """Hold a message that kombu itself could not read."""
        self._hold(message, undecodable(message, exc, self.policy))

    def _hold(self, message: Any, item: TaskRecord | Undecodable) -> None:
        self._batch.add(message.delivery_tag, item)


class _Stopping(Exception):
    """The monitor is to stop while it tries to connect."""


def _log_away(connection: Any, exc: BaseException, then: str) -> None:
    logger.warning("The broker is away (%s: %s); %s", connection.shown_uri(), shown(exc), then)


def policy_of(app: Any) -> StoragePolicy:
    """What of messages the settings of ``app`` allow to be stored."""
    conf = app.conf
    if conf.MONITOR_REDACT and not callable(conf.MONITOR_REDACT):
        _import_tasks(app)
    return StoragePolicy.from_app(app)


def _import_tasks(app: Any) -> None:
    """Import what a worker imports: only the tasks' code names their positional arguments."""
    try:
        app.loader.import_default_modules()
    except Exception as exc:  # whatever happens in a module of the application
        raise ConfigError(
            "MONITOR_REDACT needs the names of the tasks' arguments, and a module with tasks "
            f"cannot be imported ({type(exc).__name__}: {exc}): install what it needs beside the "
            "monitor, or give a function."
        ) from exc


def ignoring(app: Any) -> frozenset[str]:
    """Return the names of the tasks that ignore their result, of those that ``app`` knows.

    Where their outcomes are recorded, it matters little, and no module is imported for it.
    """
    if not records_ignored(app.conf):
        try:
            app.loader.import_default_modules()
        except Exception as exc:  # whatever happens in a module of the application
            logger.warning(
                "A module with tasks cannot be imported (%s: %s): those of its tasks that ignore "
                "their result are shown as PENDING where a program without their code sends them",
                type(exc).__name__,
                exc,
            )
    return frozenset(name for name, task in app.tasks.items() if task.ignore_result)


def undecodable(message: Any, exc: Exception, policy: StoragePolicy) -> Undecodable:
    """What is kept of a message that is no task message; where arguments are hidden, no body."""
    if not isinstance(exc, MessageError):
        logger.warning("A message could not be decoded: %s", type(exc).__name__)
    info = message.delivery_info or {}
    body = _bytes(message.body)
    headers, properties = (
        {name: value for name, value in (part or {}).items() if name not in _OF_ONE_DELIVERY}
        for part in (message.headers, message.properties)
    )
    whole = hashlib.sha256(repr((headers, properties)).encode("utf-8", "replace") + body)
    error, hides = f"{type(exc).__name__}: {exc}", policy.hides
    if hides:
        error = str(exc) if isinstance(exc, MessageError) else type(exc).__name__
        for name in ("argsrepr", "kwargsrepr"):
            headers.pop(name, None)
        headers = policy.mapping(headers)
    return Undecodable(
        error=error,
        body=None if hides else body[:MAX_STORED_BODY],
        body_size=len(body),
        routing_key=info.get("routing_key"),
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=headers,
        properties=properties,
        digest=whole.hexdigest(),
    )


def _bytes(body: Any) -> bytes:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    # What is neither came in the place of a text: its JSON, on virtual transports.
    text = body if isinstance(body, str) else "" if body is None else repr(body)
    return text.encode("utf-8", "surrogatepass")


def _broker_errors(connection: Any) -> tuple[type[BaseException], ...]:
    found: Iterable[type[BaseException]] = (
        *connection.recoverable_connection_errors,
        *connection.recoverable_channel_errors,
        *connection.connection_errors,
        *connection.channel_errors,
    )
    return (*found, OSError)


def _close(connection: Any) -> None:
    try:
        connection.release()
    except Exception as exc:  # it is broken already, and the next one is made anew
        logger.debug("Closing the connection failed: %s", type(exc).__name__)
