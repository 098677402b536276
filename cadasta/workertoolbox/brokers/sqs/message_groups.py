"""The message group of each task on Amazon SQS, whose FIFO queues hand out one group at a time."""

from __future__ import annotations

from typing import Any

PROPERTY = "MessageGroupId"


def give_group(properties: dict[str, Any], task_id: str | None) -> None:
    """Give a message a group of its own, unless the caller has named one.

    kombu's default is one group for all, which lets SQS hand out one message of the monitor queue
    at a time: its copies are drawn five times faster by task.
    """
    if task_id and PROPERTY not in properties:
        properties[PROPERTY] = task_id
