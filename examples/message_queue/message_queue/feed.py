"""The thread that takes messages from the broker for the clients that wait, and settles them."""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import FetchError
from .protocol import Framing
from .publisher import REFUSALS
from .retries import Backoff, kind_of
from .sources import Delivery, make_source
from .topics import body_of

logger = logging.getLogger(__name__)

#: Seconds of one wait for the broker.
IDLE_WAIT = 1.0
#: How many acknowledged messages are remembered, in case that the broker was gone before it knew.
REMEMBERED = 20_000


@dataclass(slots=True, eq=False)
class Lease:
    """A message that one client has and has not acknowledged."""

    id: str
    topic: str
    body: str
    #: None where the broker's connection was lost: then it has put the message back.
    delivery: Delivery | None


#: What the thread tells the server, in its event loop: a topic, and a lease or an error.
News = list[tuple[str, Lease | FetchError]]


class Feed:
    """Takes as many messages as clients wait for.

    A message is with one client at a time. Where the broker's connection breaks, the broker hands
    out again what clients hold. This thread knows these messages: one that a client still holds
    stays with it, and one that was acknowledged meanwhile is acknowledged again and not shown.

    Args:
        app: the Celery app.
        tell: takes news; called in the thread.
        framing: what clients get messages in; one that does not fit is refused.
    """

    def __init__(self, app: Any, tell: Callable[[News], None], framing: Framing) -> None:
        self._tell = tell
        self._framing = framing
        self._source = make_source(app, self._receive)
        self._is_open = False
        self._commands: deque[Callable[[], None]] = deque()
        self._stopping = threading.Event()
        self._waiting: Counter[str] = Counter()
        self._leases: dict[str, Lease] = {}
        self._acknowledged: OrderedDict[str, None] = OrderedDict()
        self._news: News = []
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    # -- for the event loop

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Disconnect; what clients hold goes back to its queue."""
        self._stopping.set()
        self._source.wake()
        self._thread.join(timeout)

    @property
    def is_connected(self) -> bool:
        """Whether the broker is there."""
        return self._is_open

    def want(self, topic: str) -> None:
        """One client more waits for a message of ``topic``."""
        self._command(lambda: self._want(topic))

    def unwant(self, topic: str) -> None:
        """One client less waits."""
        self._command(lambda: self._unwant(topic))

    def settle(
        self, lease: Lease, *, requeue: bool, again: bool, done: Callable[[], None] | None = None
    ) -> None:
        """End a lease.

        Args:
            lease: what a client had.
            requeue: put the message back, instead of acknowledging it.
            again: the client waits for its next message.
            done: called, in the thread, when the broker has taken it.
        """
        self._command(lambda: self._settle(lease, requeue, again, done))

    def notify(self, topic: str) -> None:
        """This process has published a message of ``topic``."""
        self._source.notify(topic)

    def _command(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._source.wake()

    # -- in the thread

    def _run(self) -> None:
        retry = Backoff()
        while not self._stopping.is_set():
            try:
                self._source.open()
                self._is_open = True
                retry.reset()
                logger.info("Taking messages from the broker")
                self._resume()
                while not self._stopping.is_set():
                    self._obey()
                    self._source.poll(IDLE_WAIT)
                    self._tell_news()
            except Exception as error:  # Any: a driver's surprise must not end this thread
                self._lose(error, retry.next())
        self._is_open = False
        self._source.close()

    def _lose(self, error: Exception, wait: float) -> None:
        """Go on without the broker for ``wait`` seconds."""
        expected = isinstance(error, self._source.errors)
        logger.warning(
            "The broker is away (%s); next attempt in %.1f s",
            kind_of(error),
            wait,
            exc_info=not expected,
        )
        self._is_open = False
        for lease in self._leases.values():
            lease.delivery = None
        self._source.close()
        self._stopping.wait(wait)
        self._obey()

    def _obey(self) -> None:
        while self._commands:
            self._commands.popleft()()
        self._tell_news()

    def _tell_news(self) -> None:
        if self._news:
            news, self._news = self._news, []
            self._tell(news)

    def _resume(self) -> None:
        for topic, waiting in list(self._waiting.items()):
            for _ in range(waiting):
                if topic in self._waiting:  # else it was refused
                    self._add(topic)

    def _add(self, topic: str) -> None:
        try:
            self._source.add(topic)
        except Exception as error:
            if not self._is_refusal(error):
                raise
            logger.error("Topic %s cannot be read: %s", topic, error)
            self._news += [(topic, FetchError(str(error)))] * self._waiting.pop(topic, 0)

    def _is_refusal(self, error: BaseException) -> bool:
        """Whether the broker is there, and says no to this topic."""
        source = self._source
        return (
            getattr(error, "code", None) in REFUSALS
            or isinstance(error, source.refusals)
            or not isinstance(error, source.errors)
        )

    def _want(self, topic: str) -> None:
        self._waiting[topic] += 1
        if self._is_open:
            self._add(topic)

    def _unwant(self, topic: str) -> None:
        # None waits: a message is on its way to the client that left, and will be put back.
        if self._waiting[topic]:
            self._waiting[topic] -= 1
            if self._is_open:
                self._source.remove(topic)
        if not self._waiting[topic]:
            del self._waiting[topic]

    def _settle(
        self, lease: Lease, requeue: bool, again: bool, done: Callable[[], None] | None
    ) -> None:
        delivery, lease.delivery = lease.delivery, None
        self._leases.pop(lease.id, None)
        if not requeue:
            self._remember(lease.id)
        if again:
            self._waiting[lease.topic] += 1
        try:
            if delivery is not None:
                self._source.settle(delivery, requeue, again)
                if done is not None:
                    self._source.flush()
            elif again and self._is_open:
                self._add(lease.topic)
        finally:
            if done is not None:
                done()

    def _remember(self, message_id: str) -> None:
        self._acknowledged[message_id] = None
        if len(self._acknowledged) > REMEMBERED:
            self._acknowledged.popitem(last=False)

    def _receive(self, delivery: Delivery) -> None:
        topic, message = delivery.topic, delivery.message
        try:
            if message.content_type != "application/json":
                raise ValueError(f"it is {message.content_type!r}, which is not read")
            message_id, body = body_of(message.headers, message.payload)
            if not self._framing.can_carry(body.encode()):
                raise ValueError("it contains TAIL")
        except Exception as error:  # Any: whatever a stranger has put there
            logger.error("A message of topic %s is refused: %s", topic, error)
            self._source.discard(delivery)
            return
        if message_id in self._acknowledged:
            self._source.settle(delivery, requeue=False, again=True)
        elif (held := self._leases.get(message_id)) is not None:
            held.delivery = delivery
            self._source.add(topic)
        else:
            self._waiting[topic] -= 1
            if not self._waiting[topic]:
                del self._waiting[topic]
            lease = self._leases[message_id] = Lease(message_id, topic, body, delivery)
            self._news.append((topic, lease))
