"""Which pools are of processes that Celery's event loop feeds and reads."""

from __future__ import annotations

from typing import Any

from .known import Workaround

#: What our workarounds use of such a pool.
_USED = ("_fileno_to_outq", "_cache", "flush")


def has_event_loop(pool: Any, workaround: Workaround) -> bool:
    """Tell whether ``pool`` is such a one, and as ``workaround`` knows it."""
    prefork = workaround.find("celery.concurrency.prefork", "TaskPool")
    if prefork is None or not isinstance(pool, prefork):
        return False
    asynchronous = workaround.find("celery.concurrency.asynpool", "AsynPool")
    processes = getattr(pool, "_pool", None)
    if processes is None:
        workaround.warn("the pool of processes has no _pool")
    if asynchronous is None or not isinstance(processes, asynchronous):
        return False  # That of billiard, where there is no event loop.
    return workaround.has(processes, "celery.concurrency.asynpool.AsynPool", *_USED)
