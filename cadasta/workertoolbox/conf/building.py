"""The third step to a ``Config``: queues and routes, from the value of every other setting.

A function of its inputs alone; what no broker would take it refuses by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kombu import Exchange, Queue

from ..errors import ConfigError
from ..routing.names import DEFAULT_QUEUE, validate_queues
from ..routing.queues import monitor_queue, set_max_priority, work_queue
from ..routing.router import Router
from .resolving import Resolved


def build(resolved: Resolved) -> dict[str, Any]:
    """Return all settings of an app by name: the toolbox's and Celery's.

    Raises:
        ConfigError: a queue cannot work.
    """
    broker, toolbox, celery = resolved.broker, resolved.toolbox, dict(resolved.celery)
    monitor_name = toolbox["PLATFORM_QUEUE_NAME"]
    validate_queues(toolbox["QUEUES"], monitor=monitor_name, queue_type=toolbox["QUEUE_TYPE"])
    default = celery["task_default_queue"]
    names = list(dict.fromkeys([*toolbox["QUEUES"], default or DEFAULT_QUEUE]))
    if monitor_name in names:
        names.remove(monitor_name)
    broker.require_queue_names([*names, monitor_name], celery["broker_transport_options"])
    queue_type = broker.queue_type(toolbox["QUEUE_TYPE"])
    exchange = Exchange(celery["task_default_exchange"], type=celery["task_default_exchange_type"])
    monitor = monitor_queue(monitor_name, exchange, queue_type)
    if celery.get("task_queues") is None:
        have = _rebound(resolved.queues, exchange) if resolved.queues else {}
        made = {name: work_queue(name, exchange, queue_type) for name in names if name not in have}
        celery["task_queues"] = list({**made, **have}.values())
    queues = {queue.name: queue for queue in celery["task_queues"]}
    if monitor_name in queues:
        raise ConfigError(
            f"task_queues holds the monitor queue {monitor_name!r}: a worker would consume the "
            f"copies and run each task again. Take it out."
        )
    routes = celery.get("task_routes")
    if routes:
        _check_routes(routes, queues, {queue.alias for queue in resolved.queues})
    for queue in queues.values():
        set_max_priority(queue, celery.get("task_queue_max_priority"))
    broker.require_possible_queues(queues.values())
    broker.require_queue_type(toolbox["QUEUE_TYPE"], celery)
    celery["task_routes"] = Router(
        queues,
        monitor,
        default_queue=default,
        user_routes=routes,
        message_groups=broker.has_message_groups,
        expires_on_broker=broker.expires_tasks(celery.get("broker_transport")),
        delay_queue_type=celery.get("broker_native_delayed_delivery_queue_type", "quorum"),
    )
    return {**celery, **toolbox}


def _rebound(queues: Iterable[Queue], exchange: Exchange) -> dict[str, Queue]:
    """Return an app's queues by name, on the toolbox's exchange where that is possible."""
    from ..routing.rebound import rebound  # most apps of Config have none
    from .user_routes import is_movable

    return {q.name: rebound(q, exchange) if is_movable(q) else q for q in queues}


def _check_routes(routes: Any, queues: Mapping[str, Queue], aliases: set[str]) -> None:
    from .user_routes import routed_queues  # most apps of Config have none

    for name in routed_queues(routes):
        if name not in queues and name not in aliases:
            raise ConfigError(
                f"task_routes sends tasks to the queue {name!r}, which is not among the queues "
                f"({', '.join(sorted(queues))}): add it to queues=[...]."
            )
