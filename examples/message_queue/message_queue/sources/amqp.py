"""RabbitMQ: for each waiting client a consumer of the broker, that has one message at a time.

A consumer with a prefetch of one gets its next message only after the broker has taken the
acknowledgement of the one before. So a client that has its next message can rely on it that the
last one does not come back.
"""

from __future__ import annotations

import logging
import os
import select
from collections import defaultdict
from contextlib import suppress
from functools import partial
from itertools import count
from time import monotonic
from typing import Any

from kombu import Queue

from ..amqp_buffer import Buffer, buffer, read_all
from ..application import queue_of
from .base import Delivery, Receive, Source, connect

logger = logging.getLogger(__name__)

#: Seconds between two looks at the heartbeats.
HEARTBEAT_CHECK = 1.0


class AmqpSource(Source):
    """One channel of one connection, which only consumes: RabbitMQ never blocks such a one."""

    def __init__(self, app: Any, receive: Receive) -> None:
        super().__init__(app, receive)
        self._connection: Any = None
        self._channel: Any = None
        self._buffer = Buffer(None, None)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poll: Any = None
        self._heartbeat_due = 0.0
        self._numbers = count()
        self._queues: dict[str, Queue] = {}
        #: Consumers that the broker has ended, with their topics: somebody has deleted the queue.
        self._ended: dict[str, str] = {}
        self._readable: set[str] = set()
        #: A refusal has closed the channel. py-amqp opens it again, without its consumers.
        self._is_closed = False
        self._idle: dict[str, set[str]] = defaultdict(set)

    def open(self) -> None:
        app = self.app
        self._connection = app.connection_for_read(heartbeat=app.conf.broker_heartbeat)
        self.errors = connect(self._connection)
        self._buffer = buffer(self._connection)
        self._channel = self._connection.channel()
        self._channel.basic_qos(0, 1, False)
        self._queues.clear()
        self._ended.clear()
        self._readable.clear()
        self._is_closed = False
        self._idle.clear()
        self._poll = select.poll()
        self._poll.register(self._wake_read, select.POLLIN)
        self._poll.register(self._connection.connection.sock, select.POLLIN)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*self.errors):
                connection.release()

    def add(self, topic: str) -> None:
        queue = self._queues.get(topic)
        if queue is None:
            queue = self._declare(topic)
        else:
            # It may have been deleted since then, while nobody waited.
            queue.queue_declare(nowait=True)
        tag = f"{topic}-{next(self._numbers)}"
        callback = partial(self._on_message, topic, tag)
        # The first of a topic waits for the answer: a refusal that comes later names no topic.
        nowait = topic in self._readable
        try:
            self._channel.basic_consume(
                queue.name,
                tag,
                nowait=nowait,
                callback=callback,
                on_cancel=partial(self._on_ended, topic),
            )
        except Exception:
            self._is_closed = True
            raise
        self._readable.add(topic)
        self._idle[topic].add(tag)

    def _declare(self, topic: str) -> Queue:
        queue = queue_of(self.app, topic)
        # A refusal closes the channel that asks.
        with self._connection.channel() as channel:
            queue(channel).declare()
        found = self._queues[topic] = queue(self._channel)
        return found

    def _on_ended(self, topic: str, tag: str) -> None:
        self._ended[tag] = topic
        self._queues.pop(topic, None)

    def _go_on(self) -> None:
        """Consume anew, for clients that still wait, what was deleted and is declared again."""
        for tag, topic in list(self._ended.items()):
            if tag in self._idle[topic]:
                self._idle[topic].discard(tag)
                del self._ended[tag]
                logger.warning("The queue of topic %s was deleted; it is declared anew", topic)
                self.add(topic)

    def remove(self, topic: str) -> None:
        self._cancel(self._idle[topic].pop())

    def _cancel(self, tag: str) -> None:
        # A message that is on its way to a cancelled consumer is put back by py-amqp.
        if self._ended.pop(tag, None) is None:
            self._channel.basic_cancel(tag, nowait=True)
            self._channel.callbacks.pop(tag, None)
            self._channel.cancel_callbacks.pop(tag, None)

    def _on_message(self, topic: str, tag: str, raw: Any) -> None:
        self._idle[topic].discard(tag)
        self.receive(Delivery(topic, self._channel.message_to_python(raw), tag))

    def settle(self, delivery: Delivery, requeue: bool, again: bool) -> None:
        tag = delivery.consumer_tag
        assert tag is not None  # noqa: S101
        # RabbitMQ takes word of a message that went with its queue for word of one that is in the
        # queue of the same name now.
        is_gone = tag in self._ended
        if again:
            self._idle[delivery.topic].add(tag)
        else:
            self._cancel(tag)  # first, or the next message would come to nobody
        if is_gone:
            return
        if requeue:
            self._channel.basic_reject(delivery.message.delivery_tag, requeue=True)
        else:
            self._channel.basic_ack(delivery.message.delivery_tag)

    def discard(self, delivery: Delivery) -> None:
        tag = delivery.consumer_tag
        assert tag is not None  # noqa: S101
        self._idle[delivery.topic].add(tag)
        if tag not in self._ended:
            self._channel.basic_reject(delivery.message.delivery_tag, requeue=False)

    def flush(self) -> None:
        # Its answer comes after all that was sent before on this channel.
        self._channel.basic_qos(0, 1, False)

    def poll(self, timeout: float) -> None:
        connection = self._connection
        if self._is_closed:
            raise ConnectionError("a refusal has closed the channel")
        if self._ended:
            self._go_on()
        self._buffer.flush()
        has_more = self._buffer.has_more  # read along with the answer to a declaration
        ready = {fd for fd, _ in self._poll.poll(0 if has_more else timeout * 1000)}
        if self._wake_read in ready:
            with suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            ready.discard(self._wake_read)
        if ready or has_more:
            read_all(connection, self._buffer)
        if monotonic() >= self._heartbeat_due:
            connection.heartbeat_check()
            self._heartbeat_due = monotonic() + HEARTBEAT_CHECK

    def notify(self, topic: str) -> None:
        """The broker sends it without being asked."""

    def wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")
