"""A step of the worker, so that a long task of a solo pool does not cost its connection."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.concurrency.solo import TaskPool


class SkipInSolo(bootsteps.StartStopStep):
    """Without heartbeats where the worker's only thread runs the tasks.

    It sends none meanwhile, and RabbitMQ would close the connection: the task could not be
    acknowledged, and would run again. A host that is gone is noticed by the keepalives of TCP.
    """

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        """Celery calls it with the consumer, before that connects."""
        super().__init__(parent, **kwargs)
        if isinstance(parent.pool, TaskPool):
            parent.amqheartbeat = 0
