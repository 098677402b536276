"""A queue on the toolbox's exchange that keeps the bindings that it had before."""

from __future__ import annotations

from typing import Any

from kombu import Exchange, Queue, binding


class ReboundQueue(Queue):
    """A queue with an exchange, and bindings to others beside it.

    Of a queue with ``bindings`` kombu forgets the exchange, which publishes go by.

    Args:
        former: the bindings that it keeps.
        **options: those of a queue.
    """

    attrs = (*Queue.attrs, ("former", list))

    def __init__(self, *args: Any, former: Any = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.former = list(former or ())

    def declare(self, nowait: bool = False, channel: Any = None) -> str:
        """Declare the queue, and bind it to its exchange and to those that it had before."""
        name = super().declare(nowait=nowait, channel=channel)
        channel = channel or self.channel
        for tie in self.former:
            tie.declare(channel)
            tie.bind(self, nowait=nowait, channel=channel)
        return str(name)


def rebound(queue: Queue, exchange: Exchange) -> Queue:
    """Return a queue that listens to its own name on ``exchange``, and as it did before."""
    former = list(queue.bindings or ())
    if queue.exchange and queue.exchange.name and queue.exchange.name != exchange.name:
        former.append(binding(queue.exchange, queue.routing_key, queue.binding_arguments))
    own = {"exchange": exchange, "routing_key": queue.name, "binding_arguments": None}
    options = {**queue.as_dict(), **own, "bindings": None, "on_declared": queue.on_declared}
    return ReboundQueue(**options, former=former) if former else Queue(**options)
