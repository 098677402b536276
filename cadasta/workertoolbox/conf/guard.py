"""Keeps the tasks of an app recorded that is given routes or a broker beside its ``Config``.

Celery lets ``app.conf.task_routes = …`` and ``Celery(broker=…)`` win over it without a word.
"""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

from celery import _state, signals

from ..brokers.kinds import require_same_broker
from ..errors import ConfigError
from ..routing.router import Router
from .overlay import Overlay
from .user_routes import routed_queues

logger = logging.getLogger(__name__)

#: The apps that are known to be guarded, or to have no ``Config``.
_seen: weakref.WeakSet[Any] = weakref.WeakSet()


def connect() -> None:
    """Look at each app before its tasks are used; calling it again changes nothing."""
    _state.connect_on_app_finalize(guard)
    signals.before_task_publish.connect(
        _look, weak=False, dispatch_uid="workertoolbox.guard_publish"
    )


def _look(sender: Any = None, **_: Any) -> None:
    """Guard the apps of a program that finalizes none, as producers do: at their first publish."""
    for app in _state._get_active_apps():
        if not app.configured or app in _seen:
            continue
        passes_by = not isinstance(app.conf.task_routes, Router)
        try:
            _guard(app)
        except ConfigError as exc:  # each later publish raises it
            logger.error("Task %s is published by an app that should not be: %s", sender, exc)
            vars(app).pop("amqp", None)
            continue
        if passes_by and isinstance(app.conf.task_routes, Router):
            logger.warning(
                "Task %s is published without a record: app %r has routes of its own beside "
                "Config. From now on they pick the queue alone",
                sender,
                app.main,
            )


def guard(app: Any) -> None:
    """Guard an app, now or when it is configured; one without ``Config`` is left alone.

    Raises:
        ConfigError: its broker is of another kind than that of its ``Config``, or its routes lead
            nowhere.
    """
    if app.configured:
        _guard(app)
    else:
        # Errors of such a promise are handed on, those of a signal's receiver are not.
        app.add_defaults(partial(_guard, app))
    app.on_after_configure.connect(_guard_anew, weak=False, dispatch_uid="workertoolbox.guard")


def config_of(conf: Any) -> Mapping[str, Any] | None:
    """Return the ``Config`` among the mappings of an app's configuration, or None."""
    for mapping in conf.maps[1:]:
        if isinstance(mapping, dict) and isinstance(mapping.get("task_routes"), Router):
            return mapping
    return None


def _guard(app: Any) -> dict[str, Any]:
    _seen.add(app)
    config = config_of(app.conf)
    if config is not None and not isinstance(app.conf.maps[0], Overlay):
        Overlay.of(app.conf).use(partial(_over, app, config["task_routes"]))
    return {}


def _guard_anew(sender: Any = None, **_: Any) -> None:
    """Guard an app whose settings were read again."""
    _guard(sender)


def _over(app: Any, router: Router, conf: Any) -> dict[str, Any]:
    """The routes to show over those of an app: its own pick the queue, ours the exchange."""
    require_same_broker(conf)
    routes = conf.get("task_routes")
    if isinstance(routes, Router):
        return {}
    shown = app.conf.task_routes
    if isinstance(shown, Router) and shown.user_routes is routes:
        return {"task_routes": shown}
    for name in routed_queues(routes):
        if name not in router.queues:
            raise ConfigError(
                f"task_routes sends tasks to the queue {name!r}, which is not in "
                "Config(queues=[...]): add it there."
            )
    combined = copy.copy(router)
    combined.user_routes = routes
    vars(app).pop("amqp", None)  # it has prepared the routes before
    return {"task_routes": combined}
