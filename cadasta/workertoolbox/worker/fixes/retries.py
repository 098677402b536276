"""What becomes of a task whose ``retry()`` could not be published."""

from __future__ import annotations

import functools
import logging
from typing import Any

from celery.exceptions import Reject

from ...brokers.failures import is_away
from ...plain.urls import mask_url
from .known import Workaround

logger = logging.getLogger(__name__)

_WORKAROUND = Workaround("a task may be lost whose retry the broker did not take")


def keep_retries(app: Any) -> None:
    """Let no task of ``app`` be lost because the broker did not take its retry.

    Celery 5.7 rejects the message of such a task without a word: where it is acknowledged late,
    the broker drops it; otherwise its state stays STARTED for ever.
    """
    if not _WORKAROUND.has(app.Task, "celery.Task", "retry"):
        return
    for task in app.tasks.values():
        if not isinstance(task.retry, Retry):
            task.retry = Retry(task, task.retry)


class Retry:
    """``retry`` of one task.

    Raises, where the retry was not published:
        Reject: with ``requeue``: the message is acknowledged late and the broker is away, so it
            is delivered again.
        Exception: what the publish raised: the task fails with it.
    """

    def __init__(self, task: Any, retry: Any) -> None:
        functools.update_wrapper(self, retry)
        self.task = task
        self.retry = retry

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Publish the task once more."""
        try:
            return self.retry(*args, **options)
        except Reject as reject:
            if not _WORKAROUND.has(reject, "celery.exceptions.Reject", "reason", "requeue"):
                raise
            error = reject.reason
            if reject.requeue or not isinstance(error, Exception):
                raise  # the task's own
            again = self.task.acks_late and is_away(error)
            logger.warning(
                "Task %s[%s]: its retry was not published, %s: %s",
                self.task.name,
                self.task.request.id,
                "it is delivered again" if again else "it fails",
                mask_url(f"{type(error).__name__}: {error}"),
            )
            if again:
                raise Reject(type(error).__name__, requeue=True) from error
            raise error from None
