"""What a process registers with kombu and Celery before an app of ours works.

It is apart from the steps that make the settings, which touch nothing.
"""

from __future__ import annotations

import weakref
from typing import Any

from celery import _state, signals

from ..brokers import transports
from ..publishing import signals as publishing
from ..publishing.forks import survive_forks
from ..routing.router import Router

#: The apps that were looked at, at a publish.
_seen: weakref.WeakSet[Any] = weakref.WeakSet()


def register() -> None:
    """Register the transports, the receivers of signals and what forks need.

    Celery and kombu force these registries on us. Doing it again changes nothing.
    """
    transports.register()
    survive_forks()
    publishing.connect()
    _state.connect_on_app_finalize(_guard)
    signals.before_task_publish.connect(
        _guard_publishers, weak=False, dispatch_uid="workertoolbox.guard"
    )
    signals.worker_init.connect(
        _set_up_worker, weak=False, dispatch_uid="workertoolbox.set_up_worker"
    )


def restored(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings that a process got pickled, registered there."""
    register()
    return settings


def _guard(app: Any) -> None:
    """Look at an app that is finalized, as workers and beat do before anything else."""
    from .guard import guard  # not before there is an app

    guard(app)


def _guard_publishers(sender: Any = None, **_: Any) -> None:
    """Look at apps that nobody finalizes, as most producers do, at their first publish."""
    for app in _state._get_active_apps():
        if app.configured and app not in _seen:
            from .guard import guard_publisher  # not before there is an app

            _seen.add(app)
            guard_publisher(app, sender)


def _set_up_worker(sender: Any = None, **_: Any) -> None:
    app = getattr(sender, "app", None)
    if app is not None and isinstance(app.conf.task_routes, Router):
        from ..worker.setup import setup_app  # a producer needs none of it

        setup_app(app, throw=False)
