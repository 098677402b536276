"""The queues of an app, as they are declared on its exchange."""

from __future__ import annotations

from typing import Any

from kombu import Exchange, Queue

#: RabbitMQ 4 drops a message of a quorum queue after 20 deliveries; the ledger must not lose one.
MONITOR_DELIVERY_LIMIT = 2**31 - 1


def work_queue(name: str, exchange: Exchange, queue_type: str = "classic") -> Queue:
    """The queue ``name``, bound to ``exchange`` by its own name."""
    arguments = {"x-queue-type": "quorum"} if queue_type == "quorum" else None
    return Queue(name, exchange, routing_key=name, queue_arguments=arguments)


def monitor_queue(name: str, exchange: Exchange, queue_type: str = "classic") -> Queue:
    """The queue that receives a copy of every message on ``exchange``.

    It is as durable as the work queues: with ``queue_type="quorum"`` it is a quorum queue too.
    """
    arguments = None
    if queue_type == "quorum":
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": MONITOR_DELIVERY_LIMIT}
    return Queue(name, exchange, routing_key="#", queue_arguments=arguments)


def published(queue: Queue) -> PublishedQueue:
    """Return ``queue`` as a publish declares it."""
    return PublishedQueue(**queue.as_dict(), on_declared=queue.on_declared)


def set_max_priority(queue: Queue, highest: int | None) -> None:
    """Give ``queue`` the ``x-max-priority`` of ``task_queue_max_priority``, unless it has one.

    Celery does so when it makes its own table of the queues, which is too late for a declaration
    that came before.
    """
    if highest is not None:
        queue.queue_arguments = {"x-max-priority": highest, **(queue.queue_arguments or {})}


class PublishedQueue(Queue):
    """A queue as a publish declares it.

    kombu binds, which means copies, each entity before it looks up whether the connection has
    declared it already. A publish pays for that twice; here it costs one small object.
    """

    def bind(self, channel: Any) -> Any:
        """Return this queue on ``channel``; called by kombu."""
        return _OnChannel(self, channel)

    __call__ = bind


class _OnChannel:
    """A queue on one channel, with what kombu's ``maybe_declare`` asks for."""

    __slots__ = ("channel", "queue")

    is_bound = True

    def __init__(self, queue: Queue, channel: Any) -> None:
        self.queue = queue
        self.channel = channel

    @property
    def name(self) -> str:
        return str(self.queue.name)

    @name.setter
    def name(self, name: str) -> None:
        """Ignore it: kombu hands back the name that a broker gave to a queue; ours have names."""

    @property
    def can_cache_declaration(self) -> bool:
        return bool(self.queue.can_cache_declaration)

    def __hash__(self) -> int:
        return hash(self.queue)

    def revive(self, channel: Any) -> None:
        self.channel = channel

    def declare(self, nowait: bool = False, channel: Any = None) -> None:
        Queue.bind(self.queue, channel or self.channel).declare(nowait=nowait)
