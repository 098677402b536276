"""A step of the worker that tells of a gevent or eventlet pool whose tasks wait for each other."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps

from .known import Workaround

logger = logging.getLogger(__name__)

#: By the module of Celery's pool: what tells whether Python's blocking calls give way to others.
_PATCHED = {
    "celery.concurrency.gevent": ("gevent.monkey", "is_module_patched"),
    "celery.concurrency.eventlet": ("eventlet.patcher", "is_monkey_patched"),
}
_WORKAROUND = Workaround(
    "nothing tells of a gevent or eventlet pool whose tasks run one at a time, since Python's "
    "blocking calls are not patched"
)


class TellUnpatched(bootsteps.StartStopStep):
    """Logs an error where the pool is of green threads and nothing makes blocking calls give way.

    The command ``celery`` patches them where it finds ``-P`` or ``--pool`` among its own
    arguments, not for the setting ``worker_pool`` nor for ``app.worker_main([...])`` in a program.
    Such a worker runs a task only where another, or the worker itself, happens to give way.
    """

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        """Celery calls it with the worker, before that makes its pool."""
        super().__init__(parent, **kwargs)
        if _WORKAROUND.has(parent, "the worker", "pool_cls"):
            tell_unpatched(parent.pool_cls)


def tell_unpatched(pool_cls: type) -> None:
    """Log an error where pools of this class need patched calls, and these are not."""
    module, name = _PATCHED.get(pool_cls.__module__, ("", ""))
    is_patched = module and _WORKAROUND.find(module, name)
    if is_patched and not is_patched("socket"):
        library = module.partition(".")[0]
        logger.error(
            "Tasks in this %s pool run one at a time, or not at all, since Python's blocking "
            "calls are not patched: start it by `celery -A proj worker -P %s`, or patch them "
            "in the first line of your program.",
            library,
            library,
        )
