"""SQLite: files in WAL mode, whose writers wait for each other."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Table,
    event,
    func,
    literal_column,
)
from sqlalchemy.dialects import sqlite

from ...plain.backoff import Backoff
from ...plain.json_text import contains, dump, merged
from ..upserts import Upsert
from .batches import Batch
from .database import WILL_WRITE
from .dialect import Dialect, Limit

#: Seconds to wait for another process's transaction.
BUSY_TIMEOUT = 30


@dataclass(frozen=True)
class SQLite(Dialect):
    """SQLite."""

    name: str = "sqlite"

    is_in_process: ClassVar[bool] = True
    #: As it is usually built.
    value_limit: ClassVar[Limit | None] = Limit("SQLite's limit", 1_000_000_000)

    def is_memory(self, url: URL) -> bool:
        name = url.database or ""
        in_name = name in ("", ":memory:") or ":memory:" in name
        return in_name or url.query.get("mode") == "memory"

    def address(self, url: URL) -> tuple[str, str, int, str]:
        return self.name, "", 0, os.path.abspath(url.database or "")

    def make_folder(self, url: URL) -> None:
        folder = os.path.dirname(url.database or "")
        if folder and not self.is_memory(url) and not (url.database or "").startswith("file:"):
            os.makedirs(folder, exist_ok=True)

    def connect_arguments(self, url: URL, timeout: float | None) -> dict[str, Any]:
        if self.is_memory(url):
            return {"check_same_thread": False}
        return {"timeout": BUSY_TIMEOUT}

    def isolation_level(self, level: str) -> str:
        # It has none between; this one promises all that they do.
        return "SERIALIZABLE" if level in ("READ COMMITTED", "REPEATABLE READ") else level

    def prepare(self, engine: Engine, autocommits: bool) -> None:
        def began(connection: Connection) -> None:
            options = connection.get_execution_options()
            if options.get("isolation_level", "AUTOCOMMIT" if autocommits else "") == "AUTOCOMMIT":
                return
            immediate = options.get(WILL_WRITE, False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

        event.listen(engine, "connect", _connected)
        event.listen(engine, "begin", began)

    def _insert(self, table: Table) -> Any:
        return sqlite.insert(table)

    def batch(self, upsert: Upsert) -> Batch:
        return Batch(upsert, self.upsert(upsert), sqlite.dialect())

    def merged_json(self, present: Any, new: Any) -> ColumnElement[Any]:
        return func.workertoolbox_merged(present, new)

    def matches(self, column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
        beginning, _, rest = pattern.partition("*")
        if rest:  # Its LIKE takes capitals and small letters as the same.
            return column.op("GLOB")(re.sub(r"([\[?])", r"[\1]", pattern))
        return func.substr(column, 1, len(beginning)) == beginning

    def contains(self, column: Any, wanted: Mapping[str, Any]) -> ColumnElement[bool]:
        found: ColumnElement[int] = func.workertoolbox_contains(column, dump(dict(wanted)))
        return found == 1

    def seconds(self, start: Any, end: Any) -> ColumnElement[Any]:
        return (func.julianday(end) - func.julianday(start)) * literal_column("86400.0", Float)

    def limit_lock_wait(self, engine: Engine, seconds: int) -> None:
        def connected(connection: Any, record: object) -> None:
            connection.execute(f"PRAGMA busy_timeout = {seconds * 1000}").close()

        event.listen(engine, "connect", connected)

    def codec(self, engine: Engine, table: Table) -> str | None:
        return None


def _connected(connection: Any, record: object) -> None:
    # No transaction of the driver's own: it would begin late and without the write lock.
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000}")
        _write_ahead(cursor)
        # Safe when a process is killed; only a power cut may lose the last commits.
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = OFF")
    finally:
        cursor.close()
    # What the other databases do with JSON by themselves.
    connection.create_function("workertoolbox_contains", 2, contains, deterministic=True)
    connection.create_function("workertoolbox_merged", 2, merged, deterministic=True)


def _write_ahead(cursor: Any) -> None:
    deadline = time.monotonic() + BUSY_TIMEOUT
    retry = Backoff(0.01, 0.05)
    while cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if "readonly" in str(exc):
                return  # it can be read all the same
            # Of processes that open a new file at once, SQLite refuses all but one, and does
            # not wait for its turn as it does otherwise.
            if "locked" not in str(exc) or time.monotonic() > deadline:
                raise
            time.sleep(retry.next())
