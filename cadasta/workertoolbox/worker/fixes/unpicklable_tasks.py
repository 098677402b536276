"""A task that cannot be pickled for a pool process fails, and the worker goes on."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionInfo
from celery import bootsteps
from celery.exceptions import InvalidTaskError, TaskRevokedError

from .known import Workaround
from .process_pools import has_event_loop

_WORKAROUND = Workaround(
    "a task whose arguments are nested some 500 levels deep may end the worker: run it with "
    "'-P threads'"
)


class FailUnsendable(bootsteps.StartStopStep):
    """Let a task that cannot be pickled for a pool process fail.

    Celery 5.7 pickles a task's arguments to hand it to a pool process, and Python's pickle gives up
    at half the depth that its JSON can have: 498 levels with Python 3.10 and 3.11, 749 with 3.12,
    4,999 with 3.13, measured. That error ends the worker, and, under late acknowledgement, each
    further worker that is given the message.
    """

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Celery calls it with the worker, once its pool has started."""
        pool = parent.pool
        # The others do not pickle where the error would end the worker.
        if has_event_loop(pool, _WORKAROUND):
            pool.apply_async = Apply(pool.apply_async, pool)


class Apply:
    """``apply_async`` of a pool.

    Raises:
        TaskRevokedError: the task cannot be handed over, and has failed: with this Celery goes on
            to the next.
    """

    def __init__(self, apply_async: Any, pool: Any) -> None:
        self.apply_async = apply_async
        self.pool = pool

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Hand a task over, or let it fail."""
        try:
            return self.apply_async(*args, **options)
        except MemoryError:
            raise
        except Exception as error:
            request: Any = getattr(options.get("error_callback"), "__self__", None)
            if not _WORKAROUND.has(
                request, "the request", "id", "on_failure", "acknowledged", "acknowledge"
            ):
                raise
            with _WORKAROUND.stepping_aside():
                self._forget(request.id)
            _fail(request, error)
            raise TaskRevokedError(request.id) from error

    def _forget(self, task_id: str) -> None:
        """Remove the job that waits for its answer: a stop would wait for it, too."""
        jobs = self.pool._pool._cache
        for number, job in tuple(jobs.items()):
            if job.correlation_id == task_id and job._write_to is None and not job._accepted:
                jobs.pop(number, None)


def _fail(request: Any, error: Exception) -> None:
    """Record the failure of a task and acknowledge its message, whatever its acknowledgement."""
    reason = InvalidTaskError(
        f"Task {request.name} cannot be handed to a pool process, {type(error).__name__}: {error}. "
        "If its arguments are nested too deeply, flatten them, or run the worker with '-P threads'."
    )
    try:
        raise reason from None
    except InvalidTaskError:
        request.on_failure(ExceptionInfo())
    if not request.acknowledged:
        request.acknowledge()
