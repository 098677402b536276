"""Keeps the tasks of an app recorded that is given routes or a broker beside its ``Config``.

Celery lets ``app.conf.task_routes = …`` and ``Celery(broker=…)`` win over it without a word.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..brokers.kinds import require_same_broker
from ..errors import ConfigError
from ..routing.router import Router
from .overlay import Overlay
from .user_routes import routed_queues

logger = logging.getLogger(__name__)


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


def guard_publisher(app: Any, task: Any) -> None:
    """Guard an app that is publishing a task; Celery would swallow an error here.

    Args:
        app: the app.
        task: the name of the task.
    """
    passes_by = not isinstance(app.conf.task_routes, Router)
    try:
        _guard(app)
    except ConfigError as exc:  # each later publish raises it
        logger.error("Task %s is published by an app that should not be: %s", task, exc)
        vars(app).pop("amqp", None)
        return
    if passes_by and isinstance(app.conf.task_routes, Router):
        logger.warning(
            "Task %s is published without a record: app %r has routes of its own beside Config. "
            "From now on they pick the queue alone",
            task,
            app.main,
        )


def config_of(conf: Any) -> Mapping[str, Any] | None:
    """Return the ``Config`` among the mappings of an app's configuration, or None."""
    for mapping in conf.maps[1:]:
        if isinstance(mapping, dict) and isinstance(mapping.get("task_routes"), Router):
            return mapping
    return None


def _guard(app: Any) -> dict[str, Any]:
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
