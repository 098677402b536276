"""The third step to a ``Config``: queues and routes, from the value of every other setting.

A function of its inputs alone; what no broker would take it refuses by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kombu import Exchange, Queue

from ..errors import ConfigError
from ..routing.names import DEFAULT_QUEUE, sqs_name, validate_queues
from ..routing.queues import monitor_queue, require_possible_queues, set_max_priority, work_queue
from ..routing.router import Router
from .resolving import Resolved


def build(resolved: Resolved) -> dict[str, Any]:
    """Return all settings of an app by name: the toolbox's and Celery's.

    Raises:
        ConfigError: a queue cannot work.
    """
    kind, toolbox, celery = resolved.kind, resolved.toolbox, dict(resolved.celery)
    options = celery["broker_transport_options"]
    monitor_name, queue_type = toolbox["PLATFORM_QUEUE_NAME"], toolbox["QUEUE_TYPE"]
    prefix = options.get("queue_name_prefix", "") if kind == "sqs" else None
    validate_queues(
        toolbox["QUEUES"], monitor=monitor_name, queue_type=queue_type, sqs_prefix=prefix
    )
    default = celery["task_default_queue"]
    names = list(dict.fromkeys([*toolbox["QUEUES"], default or DEFAULT_QUEUE]))
    if monitor_name in names:
        names.remove(monitor_name)
    if kind == "sqs" and options.get("predefined_queues"):
        _check_predefined(options["predefined_queues"], [*names, monitor_name], prefix or "")
    queue_type = queue_type if kind == "amqp" else "classic"
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
    if kind == "amqp":
        require_possible_queues(queues.values())
        _check_queue_types(toolbox["QUEUE_TYPE"], celery)
    celery["task_routes"] = Router(
        queues,
        monitor,
        default_queue=default,
        user_routes=routes,
        message_groups=kind == "sqs",
        expires_on_broker=str(celery.get("broker_transport")).startswith("toolbox-amqp"),
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


def _check_queue_types(queue_type: str, settings: Mapping[str, Any]) -> None:
    name = "task_default_queue_type"
    given = settings.get(name)
    if given not in (None, "classic", queue_type):
        raise ConfigError(
            f"{name} is {given!r}, which Celery heeds only where it makes the default queue: set "
            f"QUEUE_TYPE={given!r}, which is for all queues."
        )


def _check_predefined(predefined: Mapping[str, Any], names: list[str], prefix: str) -> None:
    if prefix:
        raise ConfigError(
            "broker_transport_options: with predefined_queues, acknowledgements fail under a "
            "queue_name_prefix: drop it, or write it into the queues' names."
        )
    missing = [n for n in names if n not in predefined and sqs_name(n) not in predefined]
    if missing:
        raise ConfigError(
            f"broker_transport_options: predefined_queues lacks {', '.join(missing)}; list every "
            f"queue, the monitor queue too."
        )
