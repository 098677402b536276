"""Outcomes that Celery keeps from a result backend: of ignored results, of Ignore and of Reject."""

from __future__ import annotations

import logging
from typing import Any

from celery import signals, states
from celery.app.task import Task, get_actual_ignore_result
from celery.backends.base import BaseBackend
from celery.exceptions import TaskRevokedError

from ..sql.failures import brief

logger = logging.getLogger(__name__)


class OutcomeBackend(BaseBackend):
    """A result backend that is told how each task ended, not only of results that are wanted.

    Celery tells a backend nothing of a task that ignores its result (``ignore_result`` of the
    task, of the call, or ``task_ignore_result``), nor of one that raises ``Ignore``. With the
    setting ``RECORD_IGNORED``, the default, the final state of the first is stored without its
    value, in one write; the error of a failed one with it. That a task has raised ``Ignore`` is
    always stored, as the state IGNORED, over a state that Celery gave it, never over its own.

    Such a task has no use for its outcome: where that cannot be stored, as long as a result would
    be tried, a warning says so and the task has ended all the same.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.records_ignored = bool(self.app.conf.get("RECORD_IGNORED", True))
        _connect()

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        """Store a success, without its value where that is ignored."""
        if not store_result:
            self._record_ignored(task_id, None, state, request)
        super().mark_as_done(task_id, result, request, store_result, state)

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Store a failure, also of a task whose result is ignored."""
        if not store_result:
            self._record_ignored(task_id, exc, state, request, traceback)
        super().mark_as_failure(
            task_id, exc, traceback, request, store_result, call_errbacks, state
        )

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Store that a task was revoked or has expired, also of one whose result is ignored."""
        if not store_result:
            self._record_ignored(task_id, TaskRevokedError(reason), state, request)
        super().mark_as_revoked(task_id, reason, request, store_result, state)

    def mark_as_ignored(self, task_id: str, request: Any) -> None:
        """Store that a task has raised ``Ignore``."""
        self._store_outcome(task_id, None, states.IGNORED, request)

    def note_start(self, task_id: str) -> None:
        """Remember when a task started of which no STARTED is stored."""
        raise NotImplementedError

    def forget_start(self, task_id: str) -> None:
        """Forget it: the task has ended without an outcome, as one that is retried."""
        raise NotImplementedError

    def _record_ignored(
        self, task_id: str, value: Any, state: str, request: Any, traceback: str | None = None
    ) -> None:
        # Nor is the result of a task stored that was applied on the spot: nobody scheduled it.
        if self.records_ignored and request is not None and not is_eager(request):
            self._store_outcome(task_id, value, state, request, traceback)

    def _store_outcome(
        self, task_id: str, value: Any, state: str, request: Any, traceback: str | None = None
    ) -> None:
        try:
            self.store_result(
                task_id, value, state, traceback=traceback, request=request, is_outcome=True
            )
        except Exception as exc:  # whatever it is, the task must not fail of it
            logger.warning(
                "The outcome %s of task %s is not stored: %s",
                state,
                task_id,
                brief(exc.__cause__ or exc),
            )


def is_eager(request: Any) -> bool:
    """Tell whether a request is of a task that runs where it was applied."""
    return bool(getattr(request, "is_eager", False))


def _connect() -> None:
    """Listen to the signals of this process's tasks; a second time changes nothing."""
    for signal, receiver in (
        (signals.task_prerun, _starts),
        (signals.task_postrun, _has_ended),
    ):
        name = f"workertoolbox{receiver.__name__}"
        signal.connect(receiver, weak=False, dispatch_uid=name)


def _starts(task_id: str, task: Any, **_: Any) -> None:
    request, backend = task.request, task.backend
    if not isinstance(backend, OutcomeBackend) or is_eager(request):
        return
    if backend.records_ignored and get_actual_ignore_result(task, request):
        backend.note_start(task_id)


def _has_ended(task_id: str, task: Any, retval: Any, state: str | None, **_: Any) -> None:
    if state not in (states.IGNORED, states.REJECTED, states.RETRY):
        return
    request, backend = task.request, task.backend
    if not isinstance(backend, OutcomeBackend) or is_eager(request):
        return
    ignores = get_actual_ignore_result(task, request)
    if state == states.IGNORED and not _is_replaced(retval):
        if backend.records_ignored or not ignores:
            backend.mark_as_ignored(task_id, request)
    elif state == states.REJECTED and retval.requeue and not task.acks_late:
        # The broker has forgotten the message: nothing puts it back. Celery itself stores the
        # failure of one that is rejected for good.
        stores = not ignores or task.store_errors_even_if_ignored
        backend.mark_as_failure(
            task_id, retval, request=request, store_result=stores, call_errbacks=False
        )
    elif state == states.RETRY and ignores:
        backend.forget_start(task_id)


def _is_replaced(ignore: BaseException) -> bool:
    """Tell whether ``Task.replace`` raised it: another task goes on under the same id."""
    trace = ignore.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code is Task.on_replace.__code__
