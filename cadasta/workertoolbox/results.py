"""The result backend: ``result_backend = "toolbox+postgresql://user:password@host/name"``.

It keeps results in Celery's own tables, so that Celery's ``db+`` backend and whatever else reads
them can go on, and adds when a task started, how long it ran, and each of its attempts.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

from celery import states
from celery._state import get_current_worker_task
from celery.backends.base import BaseBackend
from celery.exceptions import BackendStoreError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import result_from_tuple
from celery.utils.time import maybe_timedelta
from kombu.utils.encoding import ensure_bytes

from .errors import ConfigError
from .failures import is_missing_table, is_passing
from .jsontext import harmless
from .redaction import make_redaction
from .result_store import ResultStore
from .result_values import describe_error, unpickle
from .schema import MAX_ATTEMPTS
from .urls import mask_url

logger = logging.getLogger(__name__)

#: Where ``result_backend_max_retries`` and the like are not set: about half an hour in all, with
#: at most 5 seconds between two tries, so that an outage of the database costs no result.
MAX_RETRIES, FIRST_SLEEP_MS, LONGEST_SLEEP_MS = 720, 50, 5000
#: How often who merely reads, such as a web process, tries again; and who notes a start.
READER_RETRIES = 3
#: The same for results that no task stores itself, of a revoked one or one that was too slow.
OUTSIDE_RETRIES = 12
#: Characters of an error that an attempt keeps; the result itself keeps all.
MAX_ERROR = 2000
#: Tasks whose start one process remembers; a process seldom runs more at a time.
MAX_RUNNING = 10_000


class ToolboxBackend(BaseBackend):
    """Celery's results in SQL: one statement a write, one connection a process.

    Rules: a SUCCESS is never overwritten, another final state (FAILURE, REVOKED) only by a final
    one, and nothing by an earlier attempt. Times are UTC. Results are in the serializer of
    ``result_serializer``, JSON; one that cannot be serialised fails its task with
    ``kombu.exceptions.EncodeError``. Arguments are kept beside the result with
    ``result_extended``, as ``MONITOR_REDACT``, ``MONITOR_STORE_ARGS`` and
    ``MONITOR_MAX_ARGS_BYTES`` say.

    A database that is away is tried again for about half an hour by a worker that has a result,
    and three times by who only reads. That a task has started is not worth waiting for: the task
    runs, and its start is written with its result. These settings change that:
    ``result_backend_always_retry``, ``result_backend_max_retries``,
    ``result_backend_base_sleep_between_retries_ms`` and
    ``result_backend_max_sleep_between_retries_ms``.

    Settings of Celery's database backend that count here: ``database_table_names``,
    ``database_table_schemas``, ``database_engine_options``.

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
        names, schemas = conf.database_table_names or {}, conf.database_table_schemas or {}
        self.store = ResultStore(
            self.url,
            {**(options or {}), **(engine_options or {})},
            (names.get("task"), schemas.get("task")),
            (names.get("group"), schemas.get("group")),
        )
        #: One for all threads of a process: the store's pool keeps them apart.
        self.thread_safe = True
        if not _is_set(conf, "result_backend_always_retry"):
            self.always_retry = True
        if not _is_set(conf, "result_backend_max_retries"):
            self.max_retries = MAX_RETRIES
        if not _is_set(conf, "result_backend_base_sleep_between_retries_ms"):
            self.base_sleep_between_retries_ms = FIRST_SLEEP_MS
        if not _is_set(conf, "result_backend_max_sleep_between_retries_ms"):
            self.max_sleep_between_retries_ms = LONGEST_SLEEP_MS
        self._extended = bool(conf.find_value_for_key("extended", "result"))
        self._keeps_args = self._extended and conf.get("MONITOR_STORE_ARGS", True)
        self._max_args = conf.get("MONITOR_MAX_ARGS_BYTES", 65536)
        self._redact: Any = None
        self._redact_headers: Any = None
        self._is_prepared = False
        #: By task id: when it started, on the process's clock and on the calendar's, and whether
        #: its row says so.
        self._running: OrderedDict[str, tuple[float, datetime, bool]] = OrderedDict()

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

    def _ensure_retryable(
        self, func: Any, *args: Any, max_retries: int | None = None, **kwargs: Any
    ) -> Any:
        if max_retries is None and get_current_worker_task() is None:
            # Not in a task: a web process, or a worker's main process, whose loop would stand.
            writes = func.__name__ == "_store_result"
            most = OUTSIDE_RETRIES if writes else READER_RETRIES
            max_retries = min(most, self.max_retries)
        return super()._ensure_retryable(func, *args, max_retries=max_retries, **kwargs)

    # -- writing --------------------------------------------------------------------------------

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        """Store a state and its value; see the class for what may overwrite what.

        Raises celery.exceptions.BackendStoreError where the database stays away, but not for
        STARTED: Celery would drop the task without running it.
        """
        if state != states.STARTED:
            return super().store_result(task_id, result, state, *args, **kwargs)
        retries = min(READER_RETRIES, self.max_retries)
        try:
            return super().store_result(
                task_id, result, state, *args, max_retries=retries, **kwargs
            )
        except BackendStoreError as exc:
            logger.warning("The start of task %s is not noted: %s", task_id, exc.__cause__ or exc)
            now = datetime.now(timezone.utc).replace(tzinfo=None)
            self._note_start(task_id, now, is_written=False)
            return result

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> None:
        is_final = state in states.READY_STATES
        known = self._running.get(task_id)
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        children = self.current_task_children(request)
        row: dict[str, Any] = {
            "task_id": task_id,
            "status": state,
            "result": ensure_bytes(self.encode(result)),
            "traceback": traceback and harmless(traceback),
            "children": ensure_bytes(self.encode(children)) if children else None,
            "date_done": now if is_final else None,
            "date_started": now if state == states.STARTED else known and known[1],
            "runtime": None,
        }
        if known is not None and (is_final or state == states.RETRY):
            row["runtime"] = time.monotonic() - known[0]
        if state == states.RETRY or (is_final and getattr(request, "retries", None)):
            self._store_attempt(row, result, request, now)
        if not (is_final and known and known[2] and self.store.finish(row)):
            row.update(self._extension(request))
            self.store.write(row, is_final)
        if state == states.STARTED:
            self._note_start(task_id, now, is_written=True)
        elif row["runtime"] is not None:
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
        row["queue"] = (getattr(request, "delivery_info", None) or {}).get("routing_key")
        stamps = getattr(request, "stamps", None)
        if stamps:
            names = request.stamped_headers or ()
            kept = {name: value for name, value in stamps.items() if name in names}
            self._prepare_redaction()
            if self._redact_headers is not None:
                kept = self._redact_headers(kept)
            row["stamps"] = ensure_bytes(
                self.encode({"stamped_headers": list(names), "stamps": kept})
            )
        if self._keeps_args and hasattr(request, "args"):  # not for an unregistered task
            row["args"], row["kwargs"] = self._arguments(request)
        return row

    def _prepare_redaction(self) -> None:
        if not self._is_prepared:
            self._redact, self._redact_headers = make_redaction(
                self.app.conf.get("MONITOR_REDACT"), self.app.tasks
            )
            self._is_prepared = True

    def _arguments(self, request: Any) -> tuple[bytes | None, bytes | None]:
        self._prepare_redaction()
        args, kwargs = request.args, request.kwargs
        try:
            if self._redact is not None:
                args, kwargs = self._redact(request.task, args, kwargs)
            encoded = [ensure_bytes(self.encode(value)) for value in (args, kwargs)]
        except Exception as exc:  # of an application's redaction: its result is stored all the same
            logger.warning(
                "The arguments of a %s are not stored: %s in redacting or writing them",
                request.task,
                type(exc).__name__,
            )
            return None, None
        args, kwargs = (one if len(one) <= self._max_args else None for one in encoded)
        return args, kwargs

    def _store_attempt(self, row: dict[str, Any], result: Any, request: Any, now: datetime) -> None:
        retries = getattr(request, "retries", None) or 0
        failed = row["status"] in states.EXCEPTION_STATES
        started = row["date_started"]
        self.store.write_attempt(
            {
                "task_id": row["task_id"],
                "place": min(retries, MAX_ATTEMPTS),
                "retries": retries,
                "state": row["status"],
                "worker": getattr(request, "hostname", None),
                "started_at": started and started.replace(tzinfo=timezone.utc),
                "ended_at": now.replace(tzinfo=timezone.utc),
                "runtime": row["runtime"],
                "error": harmless(describe_error(result)[:MAX_ERROR])
                if failed and result
                else None,
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
            found = self._decoded(stamps)
            row["stamped_headers"] = found.get("stamped_headers")
            row.update(found.get("stamps") or {})
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
        """
        interval = 0.5 if interval is None else interval
        give_up = None if timeout is None else time.monotonic() + timeout
        waiting = dict.fromkeys(task_ids)
        polls = 0
        while waiting:
            for meta in self._ensure_retryable(self._many, list(waiting)):
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


def _is_set(conf: Any, name: str) -> bool:
    return conf.value_set_for(name) and conf.get(name) is not None
