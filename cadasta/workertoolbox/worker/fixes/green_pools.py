"""A step of the worker that tells of a gevent or eventlet pool whose tasks wait for each other."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from celery import bootsteps

logger = logging.getLogger(__name__)

#: By the module of Celery's pool: what tells whether Python's blocking calls give way to others.
_PATCHED = {
    "celery.concurrency.gevent": ("gevent.monkey", "is_module_patched"),
    "celery.concurrency.eventlet": ("eventlet.patcher", "is_monkey_patched"),
}


class TellUnpatched(bootsteps.StartStopStep):
    """Logs an error where the pool is of green threads and nothing makes blocking calls give way.

    The command ``celery`` patches them where it finds ``-P`` or ``--pool`` among its own
    arguments, not for the setting ``worker_pool`` nor for ``app.worker_main([...])`` in a program.
    Such a worker runs a task only where another, or the worker itself, happens to give way.
    """

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        """Celery calls it with the worker, before that makes its pool."""
        super().__init__(parent, **kwargs)
        module, function = _PATCHED.get(parent.pool_cls.__module__, ("", ""))
        if module and not getattr(import_module(module), function)("socket"):
            name = module.partition(".")[0]
            logger.error(
                "Tasks in this %s pool run one at a time, or not at all, since Python's blocking "
                "calls are not patched: start it by `celery -A proj worker -P %s`, or patch them "
                "in the first line of your program.",
                name,
                name,
            )
