"""Putting a step of a conversation on its queue."""

from __future__ import annotations

from typing import Any

from celery.exceptions import Reject, Retry

from .celery import app
from .errors import QueueUnavailableError

#: Seconds for the broker's confirmation. One that is out of memory or disk space takes messages
#: and confirms nothing; a client of the API waits no longer than this.
CONFIRM_TIMEOUT = 5.0


def publish(name: str, args: list[Any], task_id: str) -> str:
    """Publish a task and return its id. When this returns, the broker has the task.

    Raises:
        QueueUnavailableError: the broker did not take it within some seconds.
    """
    try:
        app.send_task(name, args, task_id=task_id, confirm_timeout=CONFIRM_TIMEOUT)
    except Exception as error:  # each broker's client has errors of its own; all mean this
        raise QueueUnavailableError(f"{name}: {type(error).__name__}") from error
    return task_id


def publish_next(name: str, args: list[Any], task_id: str) -> str:
    """Publish the next step from within a task.

    Raises:
        Reject: the broker did not take it; this task goes back to its queue and runs again.
    """
    try:
        return publish(name, args, task_id)
    except QueueUnavailableError as error:
        raise Reject(str(error), requeue=True) from error


def again(task: Any, countdown: float, args: list[Any] | None = None) -> Retry:
    """Publish a running task again, to run after ``countdown`` seconds; raise what is returned.

    Raises:
        Reject: the broker did not take it; this task goes back to its queue and runs again. The
            toolbox sees to that.
    """
    retry = task.retry(args=args, countdown=countdown, throw=False)
    assert isinstance(retry, Retry)  # noqa: S101 - for the type checker; throw=False promises it
    return retry
