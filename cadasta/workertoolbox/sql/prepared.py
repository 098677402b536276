"""Prepared statements on PostgreSQL: what is written for each task is parsed and planned once."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from .failures import is_read_only

_PARAMETER = re.compile(r"%\((\w+)\)s")
#: A statement that this connection does not know: a pooler such as PgBouncer gave another one.
_UNKNOWN, _KNOWN = "26000", "42P05"


class PreparedWrite:
    """One statement that many connections execute.

    Args:
        statement: an INSERT or UPDATE of SQLAlchemy with named parameters only.
        is_passing: what it writes may be lost if the database server crashes within the next
            second, as a state on the way may; the commit does not wait for the disk then.
    """

    def __init__(self, statement: Any, is_passing: bool) -> None:
        dialect = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]
        self.plain = str(statement.compile(dialect=dialect))
        order: list[str] = []

        def numbered(match: re.Match[str]) -> str:
            if match[1] not in order:
                order.append(match[1])
            return f"${order.index(match[1]) + 1}"

        text = _PARAMETER.sub(numbered, self.plain)
        # The name tells the statement, so that one of this name is the same one.
        self.name = f"workertoolbox_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.prepare = f"PREPARE {self.name} AS {text}"
        self.execute = f"EXECUTE {self.name} ({', '.join(f'%({name})s' for name in order)})"
        if is_passing:
            # One message with two statements is one transaction, to which LOCAL applies.
            relaxed = "SET LOCAL synchronous_commit TO off; "
            self.plain, self.execute = relaxed + self.plain, relaxed + self.execute


class PreparedWriter:
    """Executes prepared writes on the connections of one psycopg2 engine, each committed at once.

    It goes past SQLAlchemy's own execution, whose share of so short a statement is a quarter.
    Where a pooler makes prepared statements impossible, the plain ones are used from then on.
    """

    def __init__(self, engine: Engine, autocommits: bool) -> None:
        self._engine = engine
        self._autocommits = autocommits
        self._prepares = True

    def run(self, write: PreparedWrite, values: dict[str, Any]) -> int:
        """Return the number of changed rows; SQLAlchemy's ``DBAPIError`` where it fails."""
        driver: Any = self._engine.dialect.loaded_dbapi
        try:
            connection = self._engine.raw_connection()
        except driver.Error as exc:
            raise self._wrapped(exc, write, is_lost=True) from exc
        try:
            cursor = connection.cursor()
            try:
                changed = self._execute(cursor, connection.info, write, values, driver.Error)
                if not self._autocommits:
                    connection.commit()
                return changed
            except driver.Error as exc:
                place: Any = connection.dbapi_connection
                is_lost = self._engine.dialect.is_disconnect(exc, place, cursor)
                error = self._wrapped(exc, write, is_lost)
                if is_lost or is_read_only(error):
                    error.connection_invalidated = True
                    connection.invalidate(exc)
                raise error from exc
            finally:
                cursor.close()
        finally:
            connection.close()

    def _wrapped(self, exc: Any, write: PreparedWrite, is_lost: bool) -> DBAPIError:
        # As SQLAlchemy's own execution does it.
        driver: Any = self._engine.dialect.loaded_dbapi
        found: DBAPIError = DBAPIError.instance(
            write.name,
            None,
            exc,
            driver.Error,
            hide_parameters=True,
            connection_invalidated=is_lost,
            dialect=self._engine.dialect,
        )
        return found

    def _execute(
        self, cursor: Any, info: Any, write: PreparedWrite, values: dict[str, Any], error: Any
    ) -> int:
        if self._prepares:
            try:
                if write.name not in info:
                    self._prepare(cursor, write, error)
                    info[write.name] = True
                cursor.execute(write.execute, values)
                return int(cursor.rowcount)
            except error as exc:
                if exc.pgcode != _UNKNOWN:
                    raise
                self._prepares = False
                self._roll_back(cursor)
        cursor.execute(write.plain, values)
        return int(cursor.rowcount)

    def _prepare(self, cursor: Any, write: PreparedWrite, error: Any) -> None:
        try:
            cursor.execute(write.prepare)
        except error as exc:
            if exc.pgcode != _KNOWN:
                raise
            self._roll_back(cursor)

    def _roll_back(self, cursor: Any) -> None:
        """End the transaction that the error has spoilt, where there is one."""
        if not self._autocommits:
            cursor.connection.rollback()
