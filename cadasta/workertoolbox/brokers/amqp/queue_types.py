"""The types of queues on RabbitMQ, and what goes with which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kombu import Queue

from ...errors import ConfigError


def is_quorum(queue: Queue) -> bool:
    """Whether a queue is declared as a quorum queue."""
    return bool((queue.queue_arguments or {}).get("x-queue-type") == "quorum")


def require_one_type(queue_type: str, settings: Mapping[str, Any]) -> None:
    """Refuse Celery's setting of the default queue's type where ``QUEUE_TYPE`` is another.

    Raises:
        ConfigError: names the remedy.
    """
    name = "task_default_queue_type"
    given = settings.get(name)
    if given not in (None, "classic", queue_type):
        raise ConfigError(
            f"{name} is {given!r}, which Celery heeds only where it makes the default queue: set "
            f"QUEUE_TYPE={given!r}, which is for all queues."
        )


def require_possible_queues(queues: Iterable[Queue]) -> None:
    """Refuse quorum queues that RabbitMQ refuses: each declaration would close its channel.

    Raises:
        ConfigError: names the queue, the option and the remedy.
    """
    for queue in filter(is_quorum, queues):
        wrong = {
            "task_queue_max_priority (x-max-priority)": "x-max-priority" in queue.queue_arguments
            or queue.max_priority is not None,
            "durable=False": not queue.durable,
            "exclusive=True": queue.exclusive,
            "auto_delete=True": queue.auto_delete,
        }
        for option in (name for name, is_set in wrong.items() if is_set):
            raise ConfigError(
                f"queue {queue.name!r} is a quorum queue, for which RabbitMQ takes no {option}: "
                f"leave it out, or make the queue a classic one (QUEUE_TYPE='classic')."
            )
