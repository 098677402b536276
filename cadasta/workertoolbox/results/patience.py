"""How long the result backend waits for a database that is away: as long as somebody wants it to.

===============================================  =============================================
who waits                                        how long
===============================================  =============================================
a task, for its outcome to be stored             about half an hour
a task, for its start to be noted                a second beyond the first attempt
``get(timeout=...)``, ``join`` and the like      their time-out
``get()`` without one, a chord's unlocking       about half an hour
one look, such as ``state``, outside a task      10 seconds
a worker's main process, for an outcome          30 seconds
all of them, in a worker that is to stop         a few seconds
===============================================  =============================================
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import states
from celery._state import get_current_worker_task
from celery.backends.base import BaseBackend
from celery.exceptions import BackendError, BackendGetMetaError, BackendStoreError
from celery.exceptions import TimeoutError as CeleryTimeoutError

from ..plain import stopping

#: Seconds for the outcome of a task, and for who waits without a time-out, unless
#: ``result_backend_max_retries`` is set: an outage of the database costs no result.
TASK_PATIENCE = 1800.0
#: Seconds for one look outside a task, such as that of a web process.
LOOK_PATIENCE = 10.0
#: Seconds for what no task stores itself, the outcome of a revoked one or one that was too slow:
#: the worker's main process stands meanwhile.
OUTSIDE_PATIENCE = 30.0
#: Seconds for the note that a task has started, which is worth no more: it is kept for later.
START_PATIENCE = 1.0

_READS = frozenset(("_get_task_meta_for", "_restore_group", "_many"))


class _GiveUp(Exception):
    """Ends Celery's loop of attempts."""


class PatientBackend(BaseBackend):
    """A result backend that waits by the clock; Celery's own counts attempts."""

    #: Seconds for a task; None: as many attempts as ``max_retries``.
    patience: float | None = TASK_PATIENCE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting = threading.local()

    @contextmanager
    def waiting(self, timeout: float | None) -> Iterator[None]:
        """Within it, reading in this thread waits for the database until so many seconds from now.

        Args:
            timeout: None: as long as tasks do.
        """
        outer = dict(vars(self._waiting))
        self._waiting.until = time.monotonic() + timeout if timeout is not None else None
        self._waiting.is_on = True
        try:
            yield
        finally:
            vars(self._waiting).update({"until": None, "is_on": False, **outer})

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Any = None,
    ) -> Any:
        """Wait for a task's outcome, through outages of the database, and return what is stored.

        Args:
            timeout: seconds; None: without end.
            interval: seconds between two looks.
            on_interval: called between them.

        Raises:
            celery.exceptions.TimeoutError: it was not ready in time.
            celery.exceptions.BackendGetMetaError: the database was away until then; without a
                ``timeout``, for about half an hour.
        """
        self._ensure_not_eager()
        give_up = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if give_up is None else give_up - time.monotonic()
            with self.waiting(left):
                meta = self.get_task_meta(task_id)
                if meta["status"] in states.READY_STATES:
                    return meta
                if on_interval:
                    on_interval()
            left = None if give_up is None else give_up - time.monotonic()
            if left is not None and left <= 0:
                raise CeleryTimeoutError("The operation timed out.")
            time.sleep(interval if left is None else min(interval, left))

    # -- Celery's loop --------------------------------------------------------------------------

    def _ensure_retryable(
        self,
        func: Any,
        *args: Any,
        fallback_exc: Any = None,
        fallback_msg: str | None = None,
        **kwargs: Any,
    ) -> Any:
        name = func.__name__
        if fallback_exc is None:  # else a bare error of the driver would come out
            fallback_exc = BackendGetMetaError if name in _READS else BackendStoreError
            fallback_msg = "the database is away"
        state = args[2] if name == "_store_result" else None
        self._waiting.name, self._waiting.most = name, self._most(name, state)
        self._waiting.start = time.monotonic()
        try:
            return super()._ensure_retryable(
                func, *args, fallback_exc=fallback_exc, fallback_msg=fallback_msg, **kwargs
            )
        except _GiveUp as exc:
            error: BackendError = fallback_exc(fallback_msg)
            raise error from exc.__context__
        finally:
            self._waiting.most = None

    def _most(self, name: str, state: str | None) -> float | None:
        """Return until when to try, on the monotonic clock; None: as often as the settings say."""
        task, now = get_current_worker_task(), time.monotonic()
        longest = None if self.patience is None else now + self.patience
        if state == states.STARTED:
            return now + START_PATIENCE
        if name in _READS and getattr(self._waiting, "is_on", False):
            # A chord's unlocking waits 3 seconds for its members, which have ended already; the
            # chord would fail if the database was away for longer.
            until: float | None = self._waiting.until
            return longest if until is None or _unlocks_chord() else until
        if task is not None:
            return longest
        return now + (OUTSIDE_PATIENCE if name == "_store_result" else LOOK_PATIENCE)

    def _sleep(self, amount: float) -> None:
        """Celery's pause between two attempts; ends them where nobody wants to wait any longer."""
        most, now = self._waiting.most, time.monotonic()
        if most is not None:
            if now >= most:
                raise _GiveUp
            amount = min(amount, most - now)
        if _unlocks_chord() and self._waiting.name == "_many":
            time.sleep(amount)  # an error here is the end of the chord, also in a worker that stops
        elif not stopping.sleep(amount, self._waiting.start):
            raise _GiveUp


def _unlocks_chord() -> bool:
    task = get_current_worker_task()
    return task is not None and task.name == "celery.chord_unlock"
