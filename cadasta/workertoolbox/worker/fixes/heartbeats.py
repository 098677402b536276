"""A step of the worker, so that a long task of a solo pool does not cost its connection."""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from .known import Workaround

_WORKAROUND = Workaround(
    "RabbitMQ may close the connection of a solo pool while it runs a long task, which then runs "
    "again: set broker_heartbeat=0 for such workers"
)


class SkipInSolo(bootsteps.StartStopStep):
    """Without heartbeats where the worker's only thread runs the tasks.

    It sends none meanwhile, and RabbitMQ would close the connection: the task could not be
    acknowledged, and would run again. A host that is gone is noticed by the keepalives of TCP.
    """

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        """Celery calls it with the consumer, before that connects."""
        super().__init__(parent, **kwargs)
        skip_heartbeats(parent)


def skip_heartbeats(consumer: Any) -> None:
    """Let a consumer whose pool is a solo one ask for no heartbeats."""
    solo = _WORKAROUND.find("celery.concurrency.solo", "TaskPool")
    if (
        solo is not None
        and isinstance(consumer.pool, solo)
        and _WORKAROUND.has(consumer, "the consumer", "amqheartbeat")
    ):
        consumer.amqheartbeat = 0
