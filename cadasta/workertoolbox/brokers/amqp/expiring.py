"""What tells a transport that a task expires on the broker, and that its copy does not."""

from __future__ import annotations

from typing import Any, NamedTuple

#: The message's property that holds an :class:`Expiring`; no broker ever sees it.
EXPIRING = "toolbox_expiring"
#: RabbitMQ's longest time for a message to live, in milliseconds: 49 days.
LONGEST = 2**32 - 1


class Expiring(NamedTuple):
    """Where the two copies of a task that expires go, each by the name of its queue."""

    #: How long the task may wait in its queue, in milliseconds.
    milliseconds: int
    #: The work queue.
    queue: str
    #: The monitor queue.
    monitor: str
    #: Headers of the monitor's copy alone.
    headers: dict[str, Any]
