"""RabbitMQ: for each waiting client a consumer of the broker, that has one message at a time.

A consumer with a prefetch of one gets its next message only after the broker has taken the
acknowledgement of the one before. So a client that has its next message can rely on it that the
last one does not come back.
"""

from __future__ import annotations

import os
import select
from collections import defaultdict
from contextlib import suppress
from functools import partial
from itertools import count
from time import monotonic
from typing import Any

from ..amqp_buffer import Buffer, buffer, read_all
from ..application import queue_of
from .base import Delivery, Receive, Source, connect

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
        self._queues: dict[str, str] = {}
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
        queue = self._queues.get(topic) or self._declare(topic)
        tag = f"{topic}-{next(self._numbers)}"
        callback = partial(self._on_message, topic, tag)
        # The first of a topic waits for the answer: a refusal that comes later names no topic.
        nowait = topic in self._readable
        try:
            self._channel.basic_consume(queue, tag, nowait=nowait, callback=callback)
        except Exception:
            self._is_closed = True
            raise
        self._readable.add(topic)
        self._idle[topic].add(tag)

    def _declare(self, topic: str) -> str:
        queue = queue_of(self.app, topic)
        # A refusal closes the channel that asks.
        with self._connection.channel() as channel:
            queue(channel).declare()
        self._queues[topic] = queue.name
        return str(queue.name)

    def remove(self, topic: str) -> None:
        self._cancel(self._idle[topic].pop())

    def _cancel(self, tag: str) -> None:
        # A message that is on its way to a cancelled consumer is put back by py-amqp.
        self._channel.basic_cancel(tag, nowait=True)
        self._channel.callbacks.pop(tag, None)

    def _on_message(self, topic: str, tag: str, raw: Any) -> None:
        self._idle[topic].discard(tag)
        self.receive(Delivery(topic, self._channel.message_to_python(raw), tag))

    def settle(self, delivery: Delivery, requeue: bool, again: bool) -> None:
        tag = delivery.consumer_tag
        assert tag is not None  # noqa: S101
        if again:
            self._idle[delivery.topic].add(tag)
        else:
            self._cancel(tag)  # first, or the next message would come to nobody
        if requeue:
            self._channel.basic_reject(delivery.message.delivery_tag, requeue=True)
        else:
            self._channel.basic_ack(delivery.message.delivery_tag)

    def discard(self, delivery: Delivery) -> None:
        tag = delivery.consumer_tag
        assert tag is not None  # noqa: S101
        self._idle[delivery.topic].add(tag)
        self._channel.basic_reject(delivery.message.delivery_tag, requeue=False)

    def flush(self) -> None:
        # Its answer comes after all that was sent before on this channel.
        self._channel.basic_qos(0, 1, False)

    def poll(self, timeout: float) -> None:
        connection = self._connection
        if self._is_closed:
            raise ConnectionError("a refusal has closed the channel")
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
