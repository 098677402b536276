"""The result backend's database: one engine a process, its tables, and what is asked of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Engine, Table, bindparam, delete, event, inspect, select
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError

from . import migrations
from .database import make_engine
from .errors import ConfigError, LedgerError
from .failures import brief, is_forbidden, is_missing_table, ledger_error
from .result_prepared import PreparedWrite, PreparedWriter
from .result_writes import COMPLETED, REPLACED, Statements, always, renamed, upsert
from .schema import attempt, taskmeta, tasksetmeta

logger = logging.getLogger(__name__)

#: Seconds for which a connection is taken for alive without asking it.
IDLE = 5.0
#: Ids in one statement; SQLite before 3.32 takes 999 parameters.
CHUNK = 500
DIALECTS = ("postgresql", "sqlite", "mysql", "mariadb")

_Name = tuple[str | None, str | None]


class ResultStore:
    """The tables of the results; safe to share between threads, and across a fork.

    Nothing is opened before the first call. Missing tables are made then, if the role may.

    Args:
        url: the database's SQLAlchemy URL.
        options: arguments of ``create_engine`` that win over ours.
        task_name, group_name: name and schema of the two tables, None for Celery's own.

    Raises:
        ConfigError: the database is none of PostgreSQL, SQLite, MySQL and MariaDB.
        LedgerError: the URL is none, or its driver is not installed.
    """

    def __init__(
        self, url: str, options: dict[str, Any], task_name: _Name, group_name: _Name
    ) -> None:
        # Pool processes have one thread that stores; further connections are for pools of threads.
        options = {"pool_size": 5, "isolation_level": "AUTOCOMMIT", **options}
        # We ask a connection that was idle; SQLAlchemy would ask before each write. There is
        # nothing to roll back in autocommit.
        ours = {"pool_pre_ping": False, "pool_reset_on_return": None}
        self.engine = make_engine(url, **{**ours, **options})
        if self.engine.dialect.name not in DIALECTS:
            raise ConfigError(
                f"The result backend cannot use {self.engine.dialect.name}: give the URL of a "
                "PostgreSQL, SQLite, MySQL or MariaDB database."
            )
        _check_idle_connections(self.engine)
        self._names = (task_name, group_name)
        self._lock = threading.Lock()
        self._tables: _Tables | None = None
        self._keeps_attempts = True
        self._writer = (
            PreparedWriter(self.engine) if self.engine.dialect.driver == "psycopg2" else None
        )

    @property
    def tables(self) -> _Tables:
        """The tables as they are; made where they are missing."""
        if self._tables is None:
            with self._lock:
                if self._tables is None:
                    self._tables = self._find() or self._make()
        return self._tables

    def _named(self) -> list[Table]:
        (task_name, task_schema), (group_name, group_schema) = self._names
        return [
            renamed(taskmeta, task_name, task_schema),
            renamed(tasksetmeta, group_name, group_schema),
            renamed(attempt, None, task_schema),
        ]

    def _find(self) -> _Tables | None:
        found = inspect(self.engine)
        task, group, attempts = self._named()
        if not all(found.has_table(one.name, schema=one.schema) for one in (task, group)):
            return None
        columns = [one["name"] for one in found.get_columns(task.name, schema=task.schema)]
        has_attempts = found.has_table(attempts.name, schema=attempts.schema)
        dialect = self.engine.dialect.name
        return _Tables(dialect, task, columns, group, attempts if has_attempts else None)

    def _make(self) -> _Tables:
        if self._names == ((None, None), (None, None)):
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
        """Store a result, unless what is stored already must stay."""
        tables = self.tables
        self._run_often("finish" if is_final else "progress", tables.known(row))

    def finish(self, row: dict[str, Any]) -> bool:
        """Store the final result of a task that has a row; False if nothing was changed."""
        values = self.tables.known(row)
        values["known_id"] = values.pop("task_id")
        return bool(self._run_often("finish_known", values))

    def _run_often(self, name: str, values: dict[str, Any]) -> int:
        tables = self.tables
        if self._writer is None:
            return self._run(getattr(tables.statements, name), values)
        try:
            return self._writer.run(tables.prepared[name], values)
        except DBAPIError as exc:
            self._look_again(exc)
            raise

    def write_attempt(self, row: dict[str, Any]) -> None:
        """Store one attempt; where the role may not, it is left out."""
        statement = self.tables.attempt_statement
        if statement is None or not self._keeps_attempts:
            return
        try:
            self._run(statement, row)
        except DBAPIError as exc:
            if not is_forbidden(exc):
                raise
            self._keeps_attempts = False
            logger.warning(
                "Attempts of tasks are not kept, since this database role may not write "
                "celery_task_attempt (%s)",
                brief(exc),
            )

    def _run(self, statement: Any, values: dict[str, Any]) -> int:
        try:
            with self.engine.connect() as connection:
                return connection.execute(statement, values).rowcount
        except DBAPIError as exc:
            self._look_again(exc)
            raise

    def _look_again(self, exc: DBAPIError) -> None:
        if is_missing_table(exc):
            self._tables = None  # dropped meanwhile: made anew by the next try

    # -- reading --------------------------------------------------------------------------------

    def read(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of those of ``ids`` that have one."""
        table = self.tables.task
        found: list[dict[str, Any]] = []
        with self.engine.connect() as connection:
            for start in range(0, len(ids), CHUNK):
                chosen = table.c.task_id.in_(ids[start : start + CHUNK])
                rows = connection.execute(select(*self.tables.shown).where(chosen))
                found += (dict(row) for row in rows.mappings())
        return found

    def read_group(self, group_id: str) -> dict[str, Any] | None:
        """Return a group's row."""
        table = self.tables.group
        with self.engine.connect() as connection:
            columns = (table.c.taskset_id, table.c.result, table.c.date_done)
            query = select(*columns).where(table.c.taskset_id == group_id)
            row = connection.execute(query).mappings().first()
        return None if row is None else dict(row)

    # -- groups, and deleting -------------------------------------------------------------------

    def save_group(self, group_id: str, result: bytes) -> None:
        """Store a group's members; a second time replaces them."""
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        row = {"taskset_id": group_id, "result": result, "date_done": now}
        self._run(self.tables.group_statement, row)

    def delete_group(self, group_id: str) -> None:
        """Delete a group's row; its tasks stay."""
        table = self.tables.group
        self._run(delete(table).where(table.c.taskset_id == bindparam("key")), {"key": group_id})

    def forget(self, task_id: str) -> None:
        """Delete what is known of a task's outcome."""
        tables = self.tables
        for table in (tables.task, tables.attempt):
            if table is not None:
                where = table.c.task_id == bindparam("key")
                self._run(delete(table).where(where), {"key": task_id})

    def expire(self, before: datetime) -> None:
        """Delete the results and groups that were done before that moment, with their attempts."""
        tables = self.tables
        moment = before.astimezone(timezone.utc).replace(tzinfo=None)
        for table in (tables.task, tables.group):
            self._run(
                delete(table).where(table.c.date_done < bindparam("moment")), {"moment": moment}
            )
        if tables.attempt is not None:
            old = tables.attempt.c.ended_at < bindparam("moment")
            self._run(delete(tables.attempt).where(old), {"moment": before})


class _Tables:
    """The tables as the database has them, and the statements for them."""

    def __init__(
        self,
        dialect: str,
        task: Table,
        columns: Sequence[str],
        group: Table,
        attempts: Table | None,
    ) -> None:
        self.task, self.group, self.attempt = task, group, attempts
        #: The columns of a result that are there, without the number that nobody needs.
        self.shown = [one for one in task.c if one.name in columns and one.name != "id"]
        self.statements = Statements(task, columns, dialect)
        self.prepared: dict[str, PreparedWrite] = {}
        if dialect == "postgresql":
            self.prepared = {
                name: PreparedWrite(getattr(self.statements, name), is_passing=name == "progress")
                for name in ("progress", "finish", "finish_known")
            }
        self.group_statement = upsert(
            group, dialect, ["taskset_id"], (["result", "date_done"], [], always)
        )
        self.attempt_statement = None
        if attempts is not None:
            others = [column for column in attempts.c.keys() if column not in ("task_id", "place")]
            self.attempt_statement = upsert(
                attempts, dialect, ["task_id", "place"], (others, [], always)
            )
        self._missing = {*REPLACED, *COMPLETED} - set(columns)
        if self._missing:
            logger.warning(
                "%s lacks the columns %s: run `celery -A proj ledger upgrade` as its owner",
                task.name,
                ", ".join(sorted(self._missing)),
            )

    def known(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row without the columns that the table lacks."""
        if not self._missing:
            return dict(row)
        return {key: value for key, value in row.items() if key not in self._missing}


def _check_idle_connections(engine: Engine) -> None:
    def checked_out(connection: Any, record: Any, proxy: object) -> None:
        used = record.info.get("workertoolbox_used")
        if used is None or time.monotonic() - used <= IDLE:
            return
        try:
            alive = engine.dialect.do_ping(connection)
        except Exception as exc:  # whatever the driver raises for a dead connection
            raise DisconnectionError(str(exc)) from exc
        if not alive:
            raise DisconnectionError("the database closed the connection")

    def checked_in(connection: Any, record: Any) -> None:
        record.info["workertoolbox_used"] = time.monotonic()

    event.listen(engine, "checkout", checked_out)
    event.listen(engine, "checkin", checked_in)
