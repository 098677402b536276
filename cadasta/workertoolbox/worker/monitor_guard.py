"""No worker may consume the monitor queue: its copies would run as tasks."""

from __future__ import annotations

import functools
from typing import Any

from ..errors import TopologyError
from ..routing.router import Router


def guard_monitor_queue(_app: Any) -> None:
    """Refuse ``control add_consumer`` for the monitor queue.

    ``worker -Q`` refuses it without help, because the monitor queue is not in ``task_queues``.
    """
    _guard_add_consumer()


@functools.cache
def _guard_add_consumer() -> None:
    """Take the place of the command in all workers of this process; Celery knows one by a name."""
    from celery.worker.control import add_consumer, control_command  # the worker's part of Celery

    @control_command(
        name="add_consumer",
        args=[("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)],
        signature="<queue> [exchange [type [routing_key]]]",
    )
    def guarded(state: Any, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Tell worker(s) to consume from task queue by name."""
        router = state.app.conf.task_routes
        if isinstance(router, Router) and queue == router.monitor.name:
            raise TopologyError(
                f"{queue!r} is the monitor queue: its messages are copies, and a worker would run "
                f"each task again. Start 'celery monitor' instead."
            )
        return add_consumer(state, queue, *args, **kwargs)
