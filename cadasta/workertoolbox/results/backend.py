"""The result backend: ``result_backend = "toolbox+postgresql://user:password@host/name"``.

It keeps results in Celery's own tables, so that Celery's ``db+`` backend and whatever else reads
them can go on, and adds when a task started, how long it ran, and each of its attempts.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery import states
from celery._state import get_current_worker_task
from celery.exceptions import BackendStoreError, Reject
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import result_from_tuple
from celery.utils.time import maybe_timedelta
from kombu.exceptions import EncodeError
from kombu.utils.encoding import ensure_bytes
from kombu.utils.imports import symbol_by_name
from sqlalchemy.exc import SQLAlchemyError

from ..errors import ConfigError, ResultError, ToolboxError
from ..messages.policy import StoragePolicy, log_unstored_arguments
from ..plain import stopping
from ..plain.forks import around_forks
from ..plain.urls import mask_url
from ..routing.names import plain_routing_key
from ..sql.engines import TIMEOUT
from ..sql.failures import brief, is_missing_table, is_passing
from ..sql.result_tables import ResultTables
from ..sql.tables import MAX_ATTEMPTS
from .limits import hide_inputs, shortened, without_extras
from .outcomes import OutcomeBackend
from .patience import PatientBackend
from .store import ResultStore
from .stored_values import describe_error, unpickle

logger = logging.getLogger(__name__)

#: Where ``result_backend_max_retries`` and the like are not set: more attempts than half an hour
#: has, with at most 5 seconds between two.
MAX_RETRIES, FIRST_SLEEP_MS, LONGEST_SLEEP_MS = 720, 50, 5000
#: Characters of an error that an attempt keeps; the result itself keeps all.
MAX_ERROR = 2000
#: Tasks whose start one process remembers; a process seldom runs more at a time.
MAX_RUNNING = 10_000

_backends: weakref.WeakSet[ToolboxBackend] = weakref.WeakSet()


class ToolboxBackend(OutcomeBackend, PatientBackend):
    """Celery's results in SQL: one statement a write, one connection a process.

    Rules: a SUCCESS is never overwritten, another final state (FAILURE, REVOKED) only by a final
    one, and nothing by an earlier attempt. Times are UTC. How a task ended that ignores its result,
    or raised ``Ignore``, is stored as :class:`~.outcomes.OutcomeBackend` tells. Results are in the
    serializer of ``result_serializer``, JSON; one that cannot be serialised fails its task with
    ``kombu.exceptions.EncodeError``. Arguments are kept beside the result with
    ``result_extended``, as ``MONITOR_REDACT``, ``MONITOR_STORE_ARGS`` and
    ``MONITOR_MAX_ARGS_BYTES`` say.

    A database that is away is tried again for about half an hour by a worker that has a result,
    by ``get()`` until its time-out, and for 10 seconds by who takes one look (see
    :mod:`.patience`). That a task has started is not worth waiting for: the task runs, and
    its start is written with its result. A connection without an answer for ``DATABASE_TIMEOUT``
    seconds (10) counts as away. These settings bound the attempts of all:
    ``result_backend_always_retry``, ``result_backend_max_retries``,
    ``result_backend_base_sleep_between_retries_ms`` and
    ``result_backend_max_sleep_between_retries_ms``.

    Settings of Celery's database backend that count here: ``database_table_names``,
    ``database_table_schemas``, ``database_engine_options`` (any of SQLAlchemy's; each result is
    committed whatever the isolation level), ``database_engine_callback``. Two have no effect:
    ``database_short_lived_sessions``, since a connection that was idle is asked before its use,
    and ``database_create_tables_at_setup``, since missing tables are made at the first use.

    Args:
        dburi: the database's URL, where ``url`` is not given.
        engine_options: further arguments of SQLAlchemy's ``create_engine``.
        url: the database's URL, as Celery passes it.

    Raises:
        ConfigError: no database is named.
        LedgerError: the URL is none, or its driver is not installed.
    """

    subpolling_interval = 0.5
    supports_native_join = True

    def __init__(
        self,
        dburi: str | None = None,
        engine_options: dict[str, Any] | None = None,
        url: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(expires_type=maybe_timedelta, url=url, **kwargs)
        conf = self.app.conf
        self.url = url or dburi or conf.database_url
        if not self.url or self.url.startswith("toolbox://"):
            raise ConfigError(
                "The result backend names no database: write it as "
                "toolbox+postgresql://user:password@host/name."
            )
        self._own_options = engine_options
        options = conf.database_engine_options if _is_set(conf, "database_engine_options") else {}
        self.store = ResultStore(
            self.url,
            {**(options or {}), **(engine_options or {})},
            ResultTables.from_conf(conf),
            conf.get("DATABASE_TIMEOUT", TIMEOUT),
        )
        callback = kwargs.get("engine_callback", conf.get("database_engine_callback"))
        if callback is not None:
            if isinstance(callback, str):
                callback = symbol_by_name(callback)
            if not callable(callback):
                raise ConfigError(f"database_engine_callback is {callback!r}: give a function.")
            callback(self.store.engine)
        #: One for all threads of a process: the store's pool keeps them apart.
        self.thread_safe = True
        if not _is_set(conf, "result_backend_always_retry"):
            self.always_retry = True
        if not _is_set(conf, "result_backend_max_retries"):
            self.max_retries = MAX_RETRIES
        else:
            self.patience = None
        if not _is_set(conf, "result_backend_base_sleep_between_retries_ms"):
            self.base_sleep_between_retries_ms = FIRST_SLEEP_MS
        if not _is_set(conf, "result_backend_max_sleep_between_retries_ms"):
            self.max_sleep_between_retries_ms = LONGEST_SLEEP_MS
        self._extended = bool(conf.find_value_for_key("extended", "result"))
        self._keeps_args = self._extended and conf.get("MONITOR_STORE_ARGS", True)
        self._storage: StoragePolicy | None = None
        #: The tasks whose outcome is not stored, since the worker stops.
        self._given_up: set[str] = set()
        #: By task id: when it started, on the process's clock and on the calendar's, and whether
        #: its row says so.
        self._running: OrderedDict[str, tuple[float, datetime, bool]] = OrderedDict()
        _backends.add(self)
        around_forks(after_in_child=_renew_locks)

    def as_uri(self, include_password: bool = False) -> str:
        """Return the database's URL, by default without the password."""
        return str(self.url if include_password else mask_url(str(self.url)))

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {
            **(kwargs or {}),
            "dburi": self.url,
            "expires": self.expires,
            "engine_options": self._own_options,
        }
        return super().__reduce__(args, kwargs)

    # -- trying again ---------------------------------------------------------------------------

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Tell whether the database may be back soon, or a table was dropped and is made anew."""
        return is_passing(exc) or is_missing_table(exc)

    # -- writing --------------------------------------------------------------------------------

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        """Store a state and its value; see the class for what may overwrite what.

        Raises, but not for STARTED, where Celery would drop the task without running it, nor for
        RETRY, whose next attempt is under way already:
            celery.exceptions.BackendStoreError: the database stays away.
            celery.exceptions.Reject: the same, and the worker stops and the task, acknowledged
                late, can run again.
            ResultError: the database refuses the result, which is too large for it, say. Of an
                error it keeps the begin of the message then.
            kombu.exceptions.EncodeError: the result cannot be serialised.
        """
        # Celery tries to store the error of the first try.
        if state != states.STARTED and task_id in self._given_up:
            raise BackendStoreError("the worker stops", task_id=task_id, state=state)
        try:
            return super().store_result(task_id, result, state, *args, **kwargs)
        except (SoftTimeLimitExceeded, MemoryError):
            raise
        except Exception as exc:
            cause = reason_not_stored(exc)
            if state == states.STARTED:
                logger.warning("The start of task %s is not noted: %s", task_id, brief(cause))
                now = datetime.now(timezone.utc).replace(tzinfo=None)
                self._note_start(task_id, now, is_written=False)
            elif state == states.RETRY:
                logger.error("The retry of task %s is not noted: %s", task_id, brief(cause))
            elif kwargs.get("is_outcome"):
                raise  # the task, which ignores it, does not run again for it
            else:
                self._give_up(task_id, state, exc)
                if not isinstance(exc, EncodeError):  # which fails the task, and is told there
                    outcome = "The %s of task %s is not stored: %s"
                    logger.error(outcome, state, task_id, brief(cause))
                raise
            return result

    def _give_up(self, task_id: str, state: str, exc: Exception) -> None:
        """Let a task run again whose outcome is not stored because the worker stops."""
        if not (isinstance(exc, BackendStoreError) and stopping.since()):
            return
        self._given_up.add(task_id)
        task = get_current_worker_task()
        again = task is not None and task.request.id == task_id and task.acks_late
        logger.error(
            "The database is away and the worker stops: %s of task %s is not stored, %s",
            state,
            task_id,
            "it will run again" if again else "it is lost",
        )
        if again:
            raise Reject("the worker stops and the result backend is away", requeue=True) from exc

    def mark_as_failure(
        self,
        task_id: str,
        exc: Any,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Store a failure, and tell the rest of its workflow.

        A hard time limit is no end for a task whose message is delivered again after it
        (``task_acks_on_failure_or_timeout=False``): then it is kept as an attempt, the state is
        RETRY, and neither its chain nor its errbacks are told.
        """
        if isinstance(exc, TimeLimitExceeded) and self._comes_back(request):
            if store_result:
                seconds = exc.args[0] if exc.args else None
                self.store_result(task_id, exc, states.RETRY, traceback, request, ran=seconds)
            return
        tell = super().mark_as_failure
        try:
            tell(task_id, exc, traceback, request, store_result, call_errbacks, state)
        except (BackendStoreError, SQLAlchemyError, ToolboxError):
            if request is None or get_current_worker_task() is not None:
                raise
            # Raised in the worker's main process, it would leave the message without an answer. It
            # is not tried once more, as it would be of a task that ignores its result.
            tell = super(OutcomeBackend, self).mark_as_failure
            tell(task_id, exc, traceback, request, False, call_errbacks, state)

    def _comes_back(self, request: Any) -> bool:
        task = self.app.tasks.get(getattr(request, "task", None))
        return task is not None and task.acks_late and not task.acks_on_timeout

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        ran: float | None = None,
        is_outcome: bool = False,
        **kwargs: Any,
    ) -> None:
        was_ignored = is_outcome and state == states.IGNORED
        is_final = was_ignored or state in states.READY_STATES
        if state in states.EXCEPTION_STATES and self._policy.hides:
            result, traceback = hide_inputs(result), hide_inputs(traceback)
        known = self._running.get(task_id)
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        children = self.current_task_children(request)
        row: dict[str, Any] = {
            "task_id": task_id,
            "status": state,
            "result": ensure_bytes(self.encode(result)),
            "traceback": traceback,
            "children": ensure_bytes(self.encode(children)) if children else None,
            "date_done": now if is_final else None,
            "date_started": now if state == states.STARTED else known and known[1],
            "runtime": ran,
        }
        if ran is None and known is not None and (is_final or state == states.RETRY):
            row["runtime"] = time.monotonic() - known[0]
        is_retried = bool(getattr(request, "retries", None))
        if state == states.RETRY or (is_final and is_retried and not is_outcome):
            self._store_attempt(row, result, request, now, comes_back=ran is not None)
        try:
            if was_ignored:
                self.store.write_ignored({**row, **self._extension(request)})
            else:
                self._put(row, request, known)
        except Exception as exc:
            reason = self.store.refusal(exc, row)
            if reason is None or was_ignored:
                raise
            self._put_less(row, result, request, reason, exc)
        if state == states.STARTED:
            self._note_start(task_id, now, is_written=True)
        elif row["runtime"] is not None:
            self._running.pop(task_id, None)

    def _put(self, row: dict[str, Any], request: Any, known: Any = None) -> None:
        is_final = row["status"] in states.READY_STATES
        if not (is_final and known and known[2] and self.store.finish(row)):
            self.store.write({**row, **self._extension(request)}, is_final)

    def _put_less(
        self, row: dict[str, Any], result: Any, request: Any, reason: str, exc: Exception
    ) -> None:
        """Store what can be of a row that the database has refused."""
        task_id, state = row["task_id"], row["status"]
        is_error = state in states.EXCEPTION_STATES
        less = without_extras({**row, **self._extension(request)})
        if is_error:
            error, less["traceback"] = shortened(result, row["traceback"], reason)
            less["result"] = ensure_bytes(self.encode(error))
        try:
            self.store.write(less, state in states.READY_STATES)
        except Exception as again:
            reason = self.store.refusal(again, less) or ""
            if not reason:
                raise
            raise ResultError(
                f"The result of task {task_id} cannot be stored: {reason}. Return less, or keep "
                "it elsewhere and return where it is."
            ) from again
        logger.warning("Of task %s only the short %s is stored: %s", task_id, state, reason)

    def note_start(self, task_id: str) -> None:
        """Remember when a task started of which no STARTED is stored."""
        self._note_start(task_id, datetime.now(timezone.utc).replace(tzinfo=None), is_written=False)

    def forget_start(self, task_id: str) -> None:
        """Forget it: the task has ended without an outcome, as one that is retried."""
        self._running.pop(task_id, None)

    def _note_start(self, task_id: str, now: datetime, is_written: bool) -> None:
        self._running[task_id] = (time.monotonic(), now, is_written)
        while len(self._running) > MAX_RUNNING:
            self._running.popitem(last=False)

    def _extension(self, request: Any) -> dict[str, Any]:
        """The columns of extended results; what is not known leaves the row as it is."""
        row: dict[str, Any] = dict.fromkeys(
            ("name", "args", "kwargs", "worker", "retries", "queue", "stamps")
        )
        if request is None:
            return row
        row["retries"] = getattr(request, "retries", None)
        row["worker"] = getattr(request, "hostname", None)
        if not self._extended:
            return row
        row["name"] = getattr(request, "task", None)
        queue = (getattr(request, "delivery_info", None) or {}).get("routing_key")
        row["queue"] = queue and plain_routing_key(queue)
        stamps = getattr(request, "stamps", None)
        if stamps:
            names = request.stamped_headers or ()
            kept = {name: value for name, value in stamps.items() if name in names}
            kept = self._policy.mapping(kept)
            row["stamps"] = self._encoded({"stamped_headers": list(names), "stamps": kept})
        if self._keeps_args and hasattr(request, "args"):  # not for an unregistered task
            row["args"], row["kwargs"] = self._arguments(request)
        return row

    def _encoded(self, stamps: dict[str, Any]) -> bytes | None:
        try:
            return bytes(ensure_bytes(self.encode(stamps)))
        except Exception as exc:  # of a serializer that tasks have and results do not
            logger.warning("The stamps of a task are not stored: %s", brief(exc))
            return None

    @property
    def _policy(self) -> StoragePolicy:
        # At the first result: the app's tasks, which name positional arguments, are known by then.
        # Not by ``cached_property``, whose lock a child could find held until Python 3.12.
        if self._storage is None:
            self._storage = StoragePolicy.from_app(self.app)
        return self._storage

    def _arguments(self, request: Any) -> tuple[bytes | None, bytes | None]:
        policy, name = self._policy, getattr(request, "task", "")
        try:
            stored = policy.arguments(name, request.args, request.kwargs)
            encoded = [ensure_bytes(self.encode(value)) for value in stored]
        except Exception as exc:  # of an application's redaction: its result is stored all the same
            log_unstored_arguments(name, exc)
            return None, None
        args, kwargs = (one if policy.fits(one) else None for one in encoded)
        return args, kwargs

    def _store_attempt(
        self, row: dict[str, Any], result: Any, request: Any, now: datetime, comes_back: bool
    ) -> None:
        retries = getattr(request, "retries", None) or 0
        failed = row["status"] in states.EXCEPTION_STATES
        started = row["date_started"]
        if started is None and row["runtime"] is not None:
            started = now - timedelta(seconds=row["runtime"])
        self.store.write_attempt(
            {
                "task_id": row["task_id"],
                "place": None if comes_back else min(retries, MAX_ATTEMPTS),
                "retries": retries,
                "state": row["status"],
                "worker": getattr(request, "hostname", None),
                "started_at": started and started.replace(tzinfo=timezone.utc),
                "ended_at": now.replace(tzinfo=timezone.utc),
                "runtime": row["runtime"],
                "error": describe_error(result)[:MAX_ERROR] if failed and result else None,
            }
        )

    # -- reading --------------------------------------------------------------------------------

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        for row in self.store.read([task_id]):
            return self._meta(row)
        return {
            **dict.fromkeys(("result", "traceback", "date_done", "children")),
            "task_id": task_id,
            "status": states.PENDING,
        }

    def _meta(self, row: dict[str, Any]) -> dict[str, Any]:
        stamps = row.pop("stamps", None)
        for key in ("result", "args", "kwargs", "children"):
            if row.get(key) is not None:
                row[key] = self._decoded(row[key])
        for key in ("date_done", "date_started"):
            if row.get(key) is not None:
                row[key] = row[key].replace(tzinfo=timezone.utc)
        if stamps is not None:
            stamped = self._decoded(stamps)
            # A stamp may have any name; the result's own fields stay what they are.
            own = {"stamped_headers": stamped.get("stamped_headers"), **row}
            row = {**(stamped.get("stamps") or {}), **own}
        if isinstance(row["result"], BaseException):  # a pickle that was not opened
            return row
        meta: dict[str, Any] = self.meta_from_decoded(row)
        return meta

    def _decoded(self, payload: Any) -> Any:
        payload = bytes(payload)
        if payload[:1] == b"\x80" and self.serializer != "pickle":
            return unpickle(payload)  # of Celery before 5.7
        return self.decode(payload)

    def _many(self, task_ids: list[str]) -> list[dict[str, Any]]:
        return [self._meta(row) for row in self.store.read(task_ids)]

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Any = None,
        max_iterations: int | None = None,
        READY_STATES: Iterable[str] = states.READY_STATES,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give id and result of each of these tasks as it becomes ready; one query a poll.

        Args:
            timeout: seconds to wait for all of them; None: without end.
            interval: seconds between two polls.
            max_iterations: polls at most; then it ends with what was ready.

        Raises:
            celery.exceptions.TimeoutError: not all were ready in time.
            celery.exceptions.BackendGetMetaError: the database was away until then.
        """
        interval = 0.5 if interval is None else interval
        give_up = None if timeout is None else time.monotonic() + timeout
        waiting = dict.fromkeys(task_ids)
        polls = 0
        while waiting:
            left = None if give_up is None else max(0.0, give_up - time.monotonic())
            with self.waiting(left):
                ready = self._ensure_retryable(self._many, list(waiting))
            for meta in ready:
                if meta["status"] in READY_STATES:
                    del waiting[meta["task_id"]]
                    if on_message is not None:
                        on_message(meta)
                    yield meta["task_id"], meta
            polls += 1
            if not waiting or (max_iterations and polls >= max_iterations):
                return
            if give_up is not None and time.monotonic() >= give_up:
                raise CeleryTimeoutError(f"Operation timed out ({timeout})")
            if on_interval:
                on_interval()
            time.sleep(interval)

    # -- forgetting -----------------------------------------------------------------------------

    def _forget(self, task_id: str) -> None:
        self._running.pop(task_id, None)
        self.store.forget(task_id)

    def cleanup(self) -> None:
        """Delete what is older than ``result_expires``; with None, the default, nothing."""
        if self.expires is not None:
            self.store.expire(datetime.now(timezone.utc) - self.expires)

    # -- groups ---------------------------------------------------------------------------------

    def _save_group(self, group_id: str, result: Any) -> Any:
        self.store.save_group(group_id, ensure_bytes(self.encode(self.prepare_value(result))))
        return result

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        row = self.store.read_group(group_id)
        if row is None:
            return None
        value = None if row["result"] is None else self._decoded(row["result"])
        row["result"] = value if value is None else result_from_tuple(value, self.app)
        if row["date_done"] is not None:
            row["date_done"] = row["date_done"].replace(tzinfo=timezone.utc)
        return row

    def _delete_group(self, group_id: str) -> None:
        self.store.delete_group(group_id)


def reason_not_stored(exc: Exception) -> BaseException:
    """Return what kept a state from being stored, for the log.

    An error's context is that of the task itself, where its failure is being stored; but Celery
    gives its own error, which tells nothing, no other trace of the database's.
    """
    context = exc.__context__ if isinstance(exc, BackendStoreError) else None
    return exc.__cause__ or context or exc


def _renew_locks() -> None:
    """Replace the locks in a child: another thread may have held them when it was forked."""
    for backend in list(_backends):
        if hasattr(backend._cache, "mutex"):  # where ``result_cache_max`` is set
            backend._cache.mutex = threading.RLock()


def _is_set(conf: Any, name: str) -> bool:
    return conf.value_set_for(name) and conf.get(name) is not None
