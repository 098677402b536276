"""The result backend's database: one engine a process, its tables, the columns that they lack."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Table, bindparam, delete, func, inspect, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..errors import ConfigError, LedgerError, ResultError
from ..plain.forks import around_forks
from ..sql import dialects, migrations
from ..sql.dialects import Dialect
from ..sql.engines import TIMEOUT, make_engine
from ..sql.failures import (
    brief,
    hung_up,
    is_bad_data,
    is_forbidden,
    is_missing_table,
    is_passing,
    ledger_error,
)
from ..sql.fitting import Fitting
from ..sql.prepared import PreparedWrite
from ..sql.result_tables import ResultTables
from ..sql.tables import MAX_ATTEMPTS
from ..sql.watch import allow
from .statements import COMPLETED, REPLACED, Statements, replacing

logger = logging.getLogger(__name__)

#: Seconds for which a connection is taken for alive without asking it.
IDLE = 5.0
#: Ids in one statement; SQLite before 3.32 takes 999 parameters.
CHUNK = 500
#: Seconds that one statement waits for another process on SQLite; then the write is tried again.
LOCK_WAIT = 8
#: Bytes of a result above which its statement is measured before it is sent.
LARGE = 2**18
#: Bytes up to which every MySQL server takes a statement.
SMALL = 2**14

#: A result's columns of text, but for its id.
_TEXTS = ("status", "traceback", "name", "worker", "queue")
#: The length of a column that has none.
ENDLESS = 2**31
_stores: weakref.WeakSet[ResultStore] = weakref.WeakSet()
_ATTEMPT_TEXTS = (("state", 50), ("worker", 155), ("error", ENDLESS))


class ResultStore:
    """The tables of the results; safe to share between threads, and across a fork.

    Nothing is opened before the first call. Missing tables are made then, if the role may.

    Args:
        url: the database's SQLAlchemy URL.
        options: arguments of ``create_engine`` that win over ours.
        places: where the tables are.
        timeout: seconds without an answer after which a connection is given up.

    Raises:
        ConfigError: the database is none of PostgreSQL, SQLite, MySQL and MariaDB.
        LedgerError: the URL is none, or its driver is not installed.
    """

    def __init__(
        self,
        url: str,
        options: dict[str, Any],
        places: ResultTables,
        timeout: float | None = TIMEOUT,
    ) -> None:
        options = dict(options)
        execution = dict(options.get("execution_options") or {})
        level = execution.pop("isolation_level", options.get("isolation_level")) or "AUTOCOMMIT"
        # Whatever the level, each statement is committed at once; in autocommit by itself.
        self._autocommits = str(level).upper() == "AUTOCOMMIT"
        # A cursor on the server outlives no autocommit, and one row needs none.
        for name in ("stream_results", "yield_per", "max_row_buffer"):
            execution.pop(name, None)
        schemas = execution.pop("schema_translate_map", None) or {}
        options |= {"isolation_level": level, "execution_options": execution}
        ours: dict[str, Any] = {}
        if options.get("pool") is None:
            if self._autocommits:
                ours["pool_reset_on_return"] = None  # there is nothing to roll back
            if options.get("poolclass") is None:
                # Pool processes have one thread that stores; the others are for pools of threads.
                ours["pool_size"] = 5
        self.engine = make_engine(
            url, timeout=timeout, is_bounded=True, ping_after=IDLE, **{**ours, **options}
        )
        dialect = dialects.find(self.engine)
        if dialect is None:
            raise ConfigError(
                f"The result backend cannot use {self.engine.dialect.name}: give the URL of a "
                "PostgreSQL, SQLite, MySQL or MariaDB database."
            )
        # A wait within a statement goes on when the worker stops; one between two tries does not.
        dialect.limit_lock_wait(self.engine, LOCK_WAIT)
        self._dialect = dialect
        self._places = places.translated(schemas)
        self._lock = threading.Lock()
        _stores.add(self)
        around_forks(after_in_child=_renew_locks)
        self._tables: _Tables | None = None
        self._keeps_attempts = True
        self._writer = dialect.writer(self.engine, self._autocommits)

    @property
    def tables(self) -> _Tables:
        """The tables as they are; made where they are missing."""
        if self._tables is None:
            with self._lock:
                if self._tables is None:
                    self._tables = self._find() or self._make()
        return self._tables

    def _named(self) -> list[Table]:
        places = self._places
        return [places.task_table(), places.group_table(), places.attempt_table()]

    def _find(self) -> _Tables | None:
        found = inspect(self.engine)
        task, group, attempts = self._named()
        if not all(found.has_table(one.name, schema=one.schema) for one in (task, group)):
            return None
        columns = {
            one["name"]: getattr(one["type"], "length", None)
            for one in found.get_columns(task.name, schema=task.schema)
        }
        has_attempts = found.has_table(attempts.name, schema=attempts.schema)
        fitting = Fitting(self._dialect.codec(self.engine, task))
        return _Tables(
            self._dialect, task, columns, group, attempts if has_attempts else None, fitting
        )

    def _make(self) -> _Tables:
        if self._places.are_celerys:
            migrations.upgrade(self.engine)
        else:
            self._make_renamed()
        tables = self._find()
        if tables is None:
            raise LedgerError(
                "The result tables are missing, or this database role may not see them: run "
                "`celery -A proj ledger upgrade` as their owner, then GRANT this role its rights."
            )
        return tables

    def _make_renamed(self) -> None:
        try:
            migrations.create(self.engine, self._named())
        except SQLAlchemyError as exc:
            raise ledger_error(exc, "make the result tables") from exc

    # -- writing --------------------------------------------------------------------------------

    def write(self, row: dict[str, Any], is_final: bool) -> None:
        """Store a result, unless what is stored already must stay.

        Text that is too long for its column, or has characters that it lacks, is made to fit.
        """
        tables = self.tables
        self._run_often("finish" if is_final else "progress", tables.known(row))

    def write_ignored(self, row: dict[str, Any]) -> None:
        """Store that a task raised ``Ignore``, unless it has stored a state of its own."""
        self._run_often("ignored", self.tables.known(row))

    def finish(self, row: dict[str, Any]) -> bool:
        """Store the final result of a task that has a row; False if nothing was changed."""
        values = self.tables.known(row)
        values["known_id"] = values.pop("task_id")
        return bool(self._run_often("finish_known", values))

    def refusal(self, exc: BaseException, row: dict[str, Any]) -> str | None:
        """Return why the database refuses this row; None where the row is not at fault."""
        if isinstance(exc, ResultError):
            return str(exc)
        size = self._dialect.size(row, self.engine.dialect.driver)
        if hung_up(exc):
            return self._excess(size) if size > SMALL else None
        if not is_bad_data(exc) or self.cannot_connect():
            return None
        reason, limit = brief(exc), self._dialect.value_limit
        if limit is not None and size > limit.size:
            return f"it takes {size:,} bytes, and {limit.name} is {limit.size:,} ({reason})"
        return f"the database refuses its {size:,} bytes ({reason})"

    def cannot_connect(self) -> bool:
        """Tell whether there is no connection at all, as with wrong ``connect_args``."""
        try:
            self.engine.connect().close()
        except Exception:  # whatever the driver makes of an argument that it does not know
            return True
        return False

    def _excess(self, size: int) -> str | None:
        """Say that a statement is too large for the server; None where it is not, as we know."""
        limit = self._dialect.statement_limit(self.engine)
        if limit is None or size <= limit.size:
            return None
        return f"it takes {size:,} bytes, and {limit.name} is {limit.size:,}"

    def _check_size(self, values: dict[str, Any]) -> None:
        # Servers hang up where they get more, as they do when they stop; MySQL after seconds.
        if len(values["result"] or b"") + len(values.get("traceback") or "") < LARGE:
            return
        excess = self._excess(self._dialect.size(values, self.engine.dialect.driver))
        if excess is not None:
            raise ResultError(excess)

    def _run_often(self, name: str, values: dict[str, Any]) -> int:
        tables = self.tables
        self._check_size(values)
        if self._writer is None:
            return self._run(getattr(tables.statements, name), values)
        try:
            return self._writer.run(tables.prepared(name), values)
        except DBAPIError as exc:
            self._look_again(exc)
            raise

    def write_attempt(self, row: dict[str, Any]) -> None:
        """Store one attempt; where the role may not, or its values cannot be, it is left out.

        Without a ``place`` it is one whose message is delivered again, and gets one below 0.
        """
        tables = self.tables
        statement = tables.attempt_statement
        if tables.attempt is None or statement is None or not self._keeps_attempts:
            return
        try:
            row = tables.fitted(row)
            if row.get("place") is None:
                row["place"] = self._place_of_one_more(tables.attempt, row["task_id"])
            self._run(statement, row)
        except Exception as exc:
            if is_passing(exc) or is_missing_table(exc):
                raise
            if not is_forbidden(exc):
                logger.warning("An attempt of a task is not kept: %s", brief(exc))
                return
            self._keeps_attempts = False
            logger.warning(
                "Attempts of tasks are not kept, since this database role may not write "
                "celery_task_attempt (%s)",
                brief(exc),
            )

    def _place_of_one_more(self, table: Table, task_id: str) -> int:
        of_task = (table.c.task_id == task_id, table.c.place < 0)
        with self.engine.connect() as connection:
            lowest = connection.scalar(select(func.min(table.c.place)).where(*of_task)) or 0
        return max(lowest - 1, -MAX_ATTEMPTS)

    def _run(self, statement: Any, values: dict[str, Any], is_long: bool = False) -> int:
        try:
            with self.engine.connect() as connection:
                if is_long:
                    allow(connection, None)
                changed = connection.execute(statement, values).rowcount
                if not self._autocommits:
                    connection.commit()
                return changed
        except DBAPIError as exc:
            self._look_again(exc)
            raise

    def _look_again(self, exc: DBAPIError) -> None:
        if is_missing_table(exc):
            self._tables = None  # dropped meanwhile: made anew by the next try

    # -- reading --------------------------------------------------------------------------------

    def read(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of those of ``ids`` that have one."""
        table, fitting = self.tables.task, self.tables.fitting
        asked = {fitting.key(one): one for one in ids}
        keys = list(asked)
        found: list[dict[str, Any]] = []
        for start in range(0, len(keys), CHUNK):
            chosen = table.c.task_id.in_(keys[start : start + CHUNK])
            with self.engine.connect() as connection:  # each has the whole time-out
                rows = connection.execute(select(*self.tables.shown).where(chosen))
                found += (dict(row) for row in rows.mappings())
        for row in found:
            row["task_id"] = asked.get(row["task_id"], row["task_id"])
        return found

    def read_group(self, group_id: str) -> dict[str, Any] | None:
        """Return a group's row."""
        table = self.tables.group
        with self.engine.connect() as connection:
            columns = (table.c.taskset_id, table.c.result, table.c.date_done)
            query = select(*columns).where(table.c.taskset_id == self.tables.fitting.key(group_id))
            row = connection.execute(query).mappings().first()
        return None if row is None else {**row, "taskset_id": group_id}

    # -- groups, and deleting -------------------------------------------------------------------

    def save_group(self, group_id: str, result: bytes) -> None:
        """Store a group's members; a second time replaces them."""
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        key = self.tables.fitting.key(group_id)
        row = {"taskset_id": key, "result": result, "date_done": now}
        try:
            self._check_size(row)
            self._run(self.tables.group_statement, row)
        except Exception as exc:
            reason = self.refusal(exc, row)
            if reason is None:
                raise
            raise ResultError(f"The group {group_id} cannot be stored: {reason}.") from exc

    def delete_group(self, group_id: str) -> None:
        """Delete a group's row; its tasks stay."""
        table = self.tables.group
        key = self.tables.fitting.key(group_id)
        self._run(delete(table).where(table.c.taskset_id == bindparam("key")), {"key": key})

    def forget(self, task_id: str) -> None:
        """Delete what is known of a task's outcome."""
        tables = self.tables
        for table in (tables.task, tables.attempt):
            if table is not None:
                where = table.c.task_id == bindparam("key")
                self._run(delete(table).where(where), {"key": tables.fitting.key(task_id)})

    def expire(self, before: datetime) -> None:
        """Delete the results and groups that were done before that moment, with their attempts."""
        tables = self.tables
        moment = before.astimezone(timezone.utc).replace(tzinfo=None)
        for table in (tables.task, tables.group):
            old = table.c.date_done < bindparam("moment")
            self._run(delete(table).where(old), {"moment": moment}, is_long=True)
        if tables.attempt is not None:
            old = tables.attempt.c.ended_at < bindparam("moment")
            self._run(delete(tables.attempt).where(old), {"moment": before}, is_long=True)


class _Tables:
    """The tables as the database has them, and the statements for them."""

    def __init__(
        self,
        dialect: Dialect,
        task: Table,
        columns: Mapping[str, int | None],
        group: Table,
        attempts: Table | None,
        fitting: Fitting,
    ) -> None:
        self.task, self.group, self.attempt = task, group, attempts
        #: How text is made to fit, and how long it may be in each column.
        self.fitting = fitting
        self._lengths = tuple((name, columns.get(name) or ENDLESS) for name in _TEXTS)
        #: The columns of a result that are there, without the number that nobody needs.
        self.shown = [one for one in task.c if one.name in columns and one.name != "id"]
        self.statements = Statements(dialect, task, columns)
        self._prepared: dict[str, PreparedWrite] = {}
        self.group_statement = replacing(dialect, group, ["taskset_id"], ["result", "date_done"])
        self.attempt_statement = None
        if attempts is not None:
            key = ["task_id", "place"]
            others = [column.key for column in attempts.c if column.key not in key]
            self.attempt_statement = replacing(dialect, attempts, key, others)
        self._missing = {*REPLACED, *COMPLETED} - set(columns)
        if self._missing:
            logger.warning(
                "%s lacks the columns %s: run `celery -A proj ledger upgrade` as its owner",
                task.name,
                ", ".join(sorted(self._missing)),
            )

    def prepared(self, name: str) -> PreparedWrite:
        """Return one of the statements for a result, by its name, to be prepared."""
        if name not in self._prepared:
            statement = getattr(self.statements, name)
            self._prepared[name] = PreparedWrite(statement, is_passing=name == "progress")
        return self._prepared[name]

    def known(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row without the columns that the table lacks, and its text made to fit."""
        found = self.fitted(row, self._lengths)
        if not self._missing:
            return found
        return {key: value for key, value in found.items() if key not in self._missing}

    def fitted(
        self, row: dict[str, Any], lengths: Sequence[tuple[str, int]] = _ATTEMPT_TEXTS
    ) -> dict[str, Any]:
        """Return the row with its id and the texts named in ``lengths`` made to fit."""
        found = dict(row)
        found["task_id"] = self.fitting.key(found["task_id"])
        for name, length in lengths:
            value = found.get(name)
            # Looked at here: nearly each of them fits, and this is run for each write.
            if value and not (len(value) <= length and value.isascii() and "\0" not in value):
                found[name] = self.fitting.text(value, length)
        return found


def _renew_locks() -> None:
    """Replace the locks in a child: another thread may have held them when it was forked."""
    for store in list(_stores):
        store._lock = threading.Lock()
