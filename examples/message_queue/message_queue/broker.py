"""The broker as the server's event loop sees it: publish, fetch, settle."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict, deque
from functools import partial
from typing import Any

from .errors import FetchError, PublishError
from .feed import Feed, Lease, News
from .protocol import Framing
from .publisher import Outgoing, Publisher

#: Seconds that a stop waits for what is on its way to the broker.
STOP_TIMEOUT = 10.0


class Broker:
    """Two threads, each with a connection of its own: one publishes, one takes messages.

    RabbitMQ stops reading from a connection that publishes when it runs out of memory; messages
    have to be taken all the same, or it would never have room again.

    Args:
        app: the Celery app.
        publish_timeout: seconds after which a message that could not be sent is refused.
        framing: what the clients get messages in.
    """

    def __init__(self, app: Any, publish_timeout: float, framing: Framing) -> None:
        self._loop = asyncio.get_running_loop()
        self._publish_timeout = publish_timeout
        self._feed = Feed(app, self._tell, framing)
        self._publisher = Publisher(app, self._on_published)
        self._waiters: dict[str, deque[asyncio.Future[Lease | None]]] = defaultdict(deque)

    def start(self) -> None:
        """Connect, in the background."""
        self._feed.start()
        self._publisher.start()

    async def stop_publishing(self) -> None:
        """Wait until what is on its way to the broker is confirmed."""
        await asyncio.to_thread(self._publisher.stop, STOP_TIMEOUT)

    async def stop(self) -> None:
        """Disconnect; what clients hold goes back."""
        await asyncio.to_thread(self._feed.stop, STOP_TIMEOUT)

    @property
    def is_connected(self) -> bool:
        """Whether messages can be taken."""
        return self._feed.is_connected

    # -- publishing

    async def publish(self, topic: str, body: str) -> str:
        """Publish a message; its id, once the broker has confirmed it.

        Raises:
            PublishError: it is not known to be in the queue.
        """
        answer: asyncio.Future[None] = self._loop.create_future()
        outgoing = Outgoing(
            id=str(uuid.uuid4()),
            topic=topic,
            body=body,
            deadline=self._loop.time() + self._publish_timeout,
            done=lambda error: self._call(_answer, answer, error),
        )
        self._publisher.publish(outgoing)
        try:
            await answer
        except asyncio.CancelledError:
            outgoing.abandoned = True
            raise
        return outgoing.id

    def _on_published(self, topics: set[str]) -> None:
        for topic in topics:
            self._feed.notify(topic)

    # -- fetching

    def fetch(self, topic: str, acknowledged: Lease | None = None) -> asyncio.Future[Lease | None]:
        """Wait for the next message.

        Args:
            topic: where from.
            acknowledged: what the client has had until now, and has done with.

        Returns:
            A future: the lease; None after :meth:`give_up`; or a FetchError.
        """
        waiter: asyncio.Future[Lease | None] = self._loop.create_future()
        self._waiters[topic].append(waiter)
        if acknowledged is None:
            self._feed.want(topic)
        else:
            self._feed.settle(acknowledged, requeue=False, again=True)
        return waiter

    def give_up(self, topic: str, waiter: asyncio.Future[Lease | None]) -> None:
        """The client waits no more; its future is None."""
        if not waiter.done():
            waiter.set_result(None)
            self._waiters[topic].remove(waiter)
            self._prune(topic)
            self._feed.unwant(topic)

    def put_back(self, lease: Lease) -> None:
        """Let another client have the message."""
        self._feed.settle(lease, requeue=True, again=False)

    async def settle(self, lease: Lease, requeue: bool = False) -> None:
        """Acknowledge a message, or put it back, and wait until the broker has taken that."""
        answer: asyncio.Future[None] = self._loop.create_future()
        done = partial(self._call, _answer, answer, None)
        self._feed.settle(lease, requeue=requeue, again=False, done=done)
        await answer

    def _tell(self, news: News) -> None:
        self._call(self._hand_out, news)

    def _hand_out(self, news: News) -> None:
        for topic, found in news:
            waiters = self._waiters.get(topic)
            if waiters:
                waiter = waiters.popleft()
                self._prune(topic)
                if isinstance(found, FetchError):
                    waiter.set_exception(found)
                else:
                    waiter.set_result(found)
            elif isinstance(found, Lease):
                self.put_back(found)

    def _prune(self, topic: str) -> None:
        if not self._waiters[topic]:
            del self._waiters[topic]

    def _call(self, function: Any, *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *args)


def _answer(answer: asyncio.Future[None], error: PublishError | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(None)
    else:
        answer.set_exception(error)
