"""Queues that release at most one job an interval for each queue id: over HTTP, and for Celery.

>>> from rate_limited_queue import limit_for, submit
>>> submit(send_sms, args=["+49", "Hello"], queue_id="customer-7", interval=1000)
>>> limit_for("customer-7").interval = 250
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client as Client
    from .errors import RateLimitedQueueError as RateLimitedQueueError
    from .push import DuplicateTask as DuplicateTask
    from .push import Limit as Limit
    from .push import limit_for as limit_for
    from .push import limited as limited
    from .push import submit as submit
    from .tasks import LimitedTask as LimitedTask

#: Loaded at first use: the HTTP server needs no Celery, and a producer no server.
_HOMES = {
    "Client": "client",
    "DuplicateTask": "push",
    "Limit": "push",
    "LimitedTask": "tasks",
    "RateLimitedQueueError": "errors",
    "limit_for": "push",
    "limited": "push",
    "submit": "push",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
