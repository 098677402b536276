"""The thread that publishes messages and waits for the broker's confirmations, many at a time."""

from __future__ import annotations

import logging
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from kombu import Queue
from kombu.common import maybe_declare
from kombu.exceptions import OperationalError

from .amqp_buffer import Buffer, buffer, read_all
from .application import driver_type, publish, queue_of
from .errors import PublishError
from .retries import Backoff, is_missing, kind_of
from .topics import MESSAGE

logger = logging.getLogger(__name__)

#: Messages that are on their way to the broker at a time, at most.
UNCONFIRMED = 256
#: Seconds of one wait for work, between two looks at the connection.
IDLE_WAIT = 1.0
#: Codes with which RabbitMQ says no to a declaration or a publish, and closes the channel.
REFUSALS = frozenset({403, 404, 405, 406})
#: The one that says that an exchange or a queue is not there.
NOT_FOUND = 404
#: Topics whose queues are remembered.
REMEMBERED = 10_000


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message on its way to the broker."""

    id: str
    topic: str
    body: str
    #: When, on the monotonic clock, it is refused if it could not be sent by then.
    deadline: float
    #: Called in the thread, once, with None or with why it is not in the queue.
    done: Callable[[PublishError | None], None]
    #: Whether it was sent: then nobody knows whether it is in the queue, until it is confirmed.
    sent: bool = False
    #: Its exchange or its queue was not there, though both are declared with a new connection.
    was_homeless: bool = False
    #: The client has left.
    abandoned: bool = False


class Publisher:
    """Publishes in order. A message is done when the broker has confirmed it.

    Where the connection breaks, what is not confirmed is sent again, under the same id. The broker
    may have both; a server that has shown the first keeps the second from its clients.

    Args:
        app: the Celery app.
        published: called, in the thread, with the topics of what was confirmed.
    """

    def __init__(self, app: Any, published: Callable[[set[str]], None]) -> None:
        self._app = app
        self._published = published
        self._outgoing: deque[Outgoing] = deque()
        self._unconfirmed: dict[int, Outgoing] = {}
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._queues: dict[str, Queue] = {}
        #: RabbitMQ: bound to the channel, the queues that it has declared; and the topics whose
        #: queues are known to be there while the next messages are written.
        self._declared: dict[str, Queue] = {}
        self._ensured: set[str] = set()
        self._is_sqs = driver_type(app) == "sqs"
        self._is_amqp = driver_type(app) == "amqp"
        self._connection: Any = None
        self._channel: Any = None
        self._buffer = Buffer(None, None)
        self._producer: Any = None
        self._poll: Any = None
        self._sequence = 0
        #: How many of the next messages are sent alone: the broker has refused one of them.
        self._suspects = 0
        self._errors: tuple[type[BaseException], ...] = (OSError, OperationalError)
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    # -- for the event loop

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End when all that is on its way is confirmed, or after ``timeout`` seconds."""
        self._stopping.set()
        self._woken.set()
        self._thread.join(timeout)

    def publish(self, outgoing: Outgoing) -> None:
        """Take a message."""
        self._outgoing.append(outgoing)
        self._woken.set()

    # -- in the thread

    def _run(self) -> None:
        retry = Backoff()
        while not (self._stopping.is_set() and not self._outgoing):
            try:
                self._open()
                retry.reset()
                self._work()
            except Exception as error:  # Any: a driver's surprise must not end this thread
                wait = retry.next()
                logger.warning(
                    "Publishing failed (%s); next attempt in %.1f s",
                    kind_of(error),
                    wait,
                    exc_info=not isinstance(error, self._errors) and not is_missing(error),
                )
                self._close()
                code = getattr(error, "code", None)
                if code in REFUSALS:
                    self._blame(error, code)
                self._outgoing.extendleft(reversed(self._unconfirmed.values()))
                self._unconfirmed.clear()
                self._refuse_overdue()
                self._stopping.wait(wait)
                if self._stopping.is_set():
                    break
        self._close()

    def _blame(self, error: Exception, code: int) -> None:
        """Refuse the message that the broker refuses.

        RabbitMQ closes the channel, some messages later, and does not say which one it was. Where
        several were on their way, each is sent alone now. What somebody has deleted is declared
        anew first.
        """
        unconfirmed = list(self._unconfirmed.values())
        is_new = code == NOT_FOUND and not all(one.was_homeless for one in unconfirmed)
        for outgoing in unconfirmed:
            outgoing.was_homeless = code == NOT_FOUND
        self._suspects = len(unconfirmed)
        if self._suspects == 1 and not is_new:
            self._finish(list(self._unconfirmed), PublishError(f"the broker refuses it: {error}"))

    def _open(self) -> None:
        app = self._app
        # Confirmations are waited for here, for many messages at once.
        options = {"confirm_publish": False, "max_retries": 0}
        self._connection = connection = app.connection_for_write(
            heartbeat=app.conf.broker_heartbeat, transport_options=options
        )
        self._errors = (
            *(*connection.connection_errors, *connection.channel_errors),
            *(OSError, OperationalError),
        )
        connection.connect()
        if self._is_amqp:
            self._buffer = buffer(connection)
            # py-amqp would look for word of a blocked connection before each publish.
            properties = connection.connection.client_properties
            properties.get("capabilities", {}).pop("connection.blocked", None)
        self._channel = channel = connection.channel()
        self._producer = app.amqp.Producer(channel)
        self._declared.clear()
        self._ensured.clear()
        self._sequence = 0
        if self._is_amqp:
            self._poll = select.poll()
            self._poll.register(connection.connection.sock, select.POLLIN)
            channel.confirm_select()
            channel.events["basic_ack"].add(self._on_ack)
            channel.events["basic_nack"].add(self._on_nack)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*self._errors):
                connection.release()

    def _work(self) -> None:
        while True:
            self._woken.clear()
            self._ensured.clear()
            window = 1 if self._suspects else UNCONFIRMED
            while self._outgoing and len(self._unconfirmed) < window:
                self._send(self._outgoing.popleft())
            if self._unconfirmed:
                self._drain(IDLE_WAIT)
                self._give_up_waiting()
            elif self._stopping.is_set() and not self._outgoing:
                return
            elif not self._woken.wait(IDLE_WAIT) and self._is_amqp:
                self._drain(0.001)

    def _give_up_waiting(self) -> None:
        """Take a broker for gone that confirms nothing for as long as a message may wait.

        Raises:
            TimeoutError: it is.
        """
        oldest = next(iter(self._unconfirmed.values()), None)
        if oldest is not None and monotonic() > oldest.deadline:
            raise TimeoutError("the broker confirms nothing")

    def _ensure(self, topic: str, queue: Queue) -> None:
        """Let the broker have the topic's queue, bound, before the next message of it.

        Somebody may have deleted the queue, its binding or the exchange since it was declared. The
        broker would confirm the message all the same: the ledger's queue takes every message, so
        that none counts as unroutable. It does what a channel says in the order in which it is
        said, so nothing has to be waited for; messages that are written together share it.
        """
        bound = self._declared.get(topic)
        if bound is None:
            # As the publish would, which would wait for answers between the queue and the message.
            route = self._app.amqp.router.route({"queue": queue}, MESSAGE)
            for entity in route["declare"]:
                maybe_declare(entity, self._channel)
            if len(self._declared) >= REMEMBERED:
                self._declared.clear()
            bound = self._declared[topic] = queue(self._channel)
        if topic not in self._ensured:
            bound.queue_declare(nowait=True)
            bound.queue_bind(nowait=True)
        self._ensured.add(topic)

    def _send(self, outgoing: Outgoing) -> None:
        if outgoing.abandoned and not outgoing.sent:
            outgoing.done(PublishError("the client has left"))
            return
        self._sequence += 1
        self._unconfirmed[self._sequence] = outgoing
        properties = {}
        queue = self._queue_of(outgoing.topic)
        if self._is_sqs and queue.name.endswith(".fifo"):
            properties["MessageGroupId"] = queue.name  # one order for the topic
        try:
            if self._is_amqp:
                self._ensure(outgoing.topic, queue)
            publish(self._app, self._producer, queue, outgoing.id, outgoing.body, **properties)
        except Exception as error:
            if is_missing(error) and not outgoing.was_homeless:
                outgoing.was_homeless = True  # it is sent again, and declared before
            elif not isinstance(error, self._errors):
                # The broker is there and says no: to try again would stop all others.
                self._finish([self._sequence], PublishError(f"the broker refuses it: {error}"))
            raise
        outgoing.sent = True
        if not self._is_amqp:
            self._finish([self._sequence])

    def _queue_of(self, topic: str) -> Queue:
        queue = self._queues.get(topic)
        if queue is None:
            if len(self._queues) >= REMEMBERED:
                self._queues.clear()
            queue = self._queues[topic] = queue_of(self._app, topic)
        return queue

    def _drain(self, timeout: float) -> None:
        self._buffer.flush()
        if self._is_ready(timeout):
            read_all(self._connection, self._buffer)
        self._connection.heartbeat_check()

    def _is_ready(self, timeout: float) -> bool:
        """Whether the broker has said something, after ``timeout`` seconds at most."""
        if self._buffer.has_more:
            return True
        return bool(self._poll.poll(timeout * 1000))

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        self._finish(self._tags(delivery_tag, multiple))

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        error = PublishError("the broker did not take the message")
        self._finish(self._tags(delivery_tag, multiple), error)

    def _tags(self, delivery_tag: int, multiple: bool) -> list[int]:
        return (
            [tag for tag in self._unconfirmed if tag <= delivery_tag]
            if multiple
            else [delivery_tag]
        )

    def _finish(self, tags: list[int], error: PublishError | None = None) -> None:
        finished = [self._unconfirmed.pop(tag) for tag in tags if tag in self._unconfirmed]
        self._suspects = max(0, self._suspects - len(finished))
        for outgoing in finished:
            outgoing.done(error)
        self._published({outgoing.topic for outgoing in finished})

    def _refuse_overdue(self) -> None:
        now = monotonic()
        kept: deque[Outgoing] = deque()
        while self._outgoing:
            outgoing = self._outgoing.popleft()
            if now < outgoing.deadline:
                kept.append(outgoing)
            elif outgoing.sent:
                outgoing.done(
                    PublishError("the broker has not confirmed it; it may be in the queue")
                )
            else:
                outgoing.done(PublishError("the broker is away; the message is not in the queue"))
        self._outgoing.extendleft(reversed(kept))
