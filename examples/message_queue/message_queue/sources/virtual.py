"""The embedded broker and kombu's other transports: ask for a message when one is wanted."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from contextlib import suppress
from time import monotonic
from typing import Any

from ..application import queue_of
from .base import Delivery, Receive, Source, UnreadableError, connect

logger = logging.getLogger(__name__)

#: Seconds between two looks at an empty queue: at first, and at most. A message that this very
#: process publishes is looked for at once.
SHORTEST_PAUSE = 0.005
LONGEST_PAUSE = 0.05
#: With more topics than this the longest pause is longer in proportion.
TOPICS_PER_PAUSE = 50
#: Seconds between two looks for messages of dead processes.
RECOVERY = 1.0


class VirtualSource(Source):
    """One channel of one connection."""

    longest_pause = LONGEST_PAUSE

    def __init__(self, app: Any, receive: Receive) -> None:
        super().__init__(app, receive)
        self._connection: Any = None
        self.channel: Any = None
        self._woken = threading.Event()
        self._pause = SHORTEST_PAUSE
        self._recovery_due = 0.0
        self._scan_due = 0.0
        #: Topics to look at now: one more client waits there, or a message was published.
        self._due: deque[str] = deque()
        self.waiting: Counter[str] = Counter()
        self.queues: dict[str, str] = {}

    def open(self) -> None:
        self._connection = self.app.connection_for_read()
        # A long poll would keep other topics and acknowledgements waiting.
        options = {**self._connection.transport_options, "wait_time_seconds": 0}
        self._connection.transport_options = options
        self.errors = connect(self._connection)
        self.channel = self._connection.channel()
        self.queues.clear()
        self.waiting.clear()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*self.errors):
                connection.release()

    def add(self, topic: str) -> None:
        if topic not in self.queues:
            queue = queue_of(self.app, topic)
            queue(self.channel).declare()
            self.queues[topic] = queue.name
        self.waiting[topic] += 1
        self._due.append(topic)

    def remove(self, topic: str) -> None:
        self.waiting[topic] -= 1
        if not self.waiting[topic]:
            del self.waiting[topic]

    def settle(self, delivery: Delivery, requeue: bool, again: bool) -> None:
        self.give_up(delivery, requeue)
        if again:
            self.add(delivery.topic)

    def give_up(self, delivery: Delivery, requeue: bool) -> None:
        """Acknowledge, or put back."""
        tag = delivery.message.delivery_tag
        if requeue:
            self.channel.basic_reject(tag, requeue=True)
        else:
            self.channel.basic_ack(tag)

    def discard(self, delivery: Delivery) -> None:
        self.channel.basic_reject(delivery.message.delivery_tag, requeue=False)
        self.add(delivery.topic)

    def flush(self) -> None:
        """Nothing is under way: each call returns when it is done."""

    def poll(self, timeout: float) -> None:
        now = monotonic()
        if now >= self._recovery_due:
            self._recovery_due = now + RECOVERY
            self.recover()
        is_scan = now >= self._scan_due
        topics = set(self.waiting) if is_scan else set()
        while self._due:
            topics.add(self._due.popleft())
        found = sum([self._take_all(topic) for topic in topics])
        if found:
            self._pause = SHORTEST_PAUSE
        if is_scan:
            self._scan_due = now + self._pause
            # Each topic that is waited for is a question to the broker.
            longest = self.longest_pause * max(1.0, len(topics) / TOPICS_PER_PAUSE)
            self._pause = min(self._pause * 1.5, longest)
        if not self._due and not found:
            if self.waiting:
                timeout = min(timeout, max(0.0, self._scan_due - now))
            self._woken.wait(timeout)
        self._woken.clear()

    def _take_all(self, topic: str) -> int:
        found = 0
        while self.waiting[topic]:
            try:
                message = self.take(self.queues[topic])
            except UnreadableError as error:
                logger.error("A message of topic %s is refused: %s", topic, error)
                continue
            if message is None:
                break
            found += 1
            self.remove(topic)
            self.receive(Delivery(topic, message))
        return found

    def take(self, queue: str) -> Any:
        """One message of ``queue``, or None.

        Raises:
            UnreadableError: what was there is none, and is out of the way.
        """
        return self.channel.basic_get(queue)

    def recover(self) -> None:
        """Let the embedded broker look for messages that dead processes had taken."""
        with suppress(TimeoutError):
            self._connection.drain_events(timeout=0)

    def wake(self) -> None:
        self._woken.set()

    def notify(self, topic: str) -> None:
        if topic in self.waiting:
            self._due.append(topic)
            self._woken.set()
