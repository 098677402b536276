"""The gateway's database: one engine a process, short transactions, tables made under a lock."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError

from cadasta.workertoolbox.sql.engines import make_engine

from .errors import SettingsError
from .schema import metadata

#: The database is away, busy or restarting: the same statement may work in a moment.
TRANSIENT = (OperationalError, InterfaceError)

#: Seconds to wait for another writer of an SQLite file.
SQLITE_PATIENCE = 30
#: The key of the advisory lock under which tables are made on PostgreSQL.
_LOCK = 0x736D7367


class Database:
    """A database by its URL. Connects and makes its tables at first use; usable after a fork.

    Args:
        url: an SQLAlchemy URL, of PostgreSQL or SQLite.

    Raises:
        SettingsError: the URL is none, or of another database.
    """

    def __init__(self, url: str) -> None:
        try:
            self._url = make_url(url)
            self.is_sqlite = self._url.get_backend_name() == "sqlite"
            if not self.is_sqlite and self._url.get_backend_name() != "postgresql":
                raise SettingsError("SMS_DATABASE_URL: use postgresql+psycopg2:// or sqlite:///.")
            self._engine = self._make_engine()
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            # The error of SQLAlchemy repeats the URL, which may hold a password.
            raise SettingsError(
                f"SMS_DATABASE_URL is no URL that SQLAlchemy can use ({type(error).__name__}): "
                "use postgresql+psycopg2://user:password@host/name or sqlite:////path."
            ) from None
        self._pid = os.getpid()
        self._is_ready = False

    def __repr__(self) -> str:
        return f"<Database {self._url.render_as_string(hide_password=True)}>"

    def _make_engine(self) -> Engine:
        if not self.is_sqlite:
            # It asks connections before their use, and gives up a server that does not answer.
            return make_engine(
                self._url.render_as_string(hide_password=False),
                pool_size=5,
                pool_recycle=1800,
                pool_timeout=10,
                connect_args={"connect_timeout": 5},
            )
        engine = create_engine(self._url, connect_args={"timeout": SQLITE_PATIENCE})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    @property
    def engine(self) -> Engine:
        """The engine of this process."""
        if self._pid != os.getpid():  # a child must not use its parent's connections
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        return self._engine

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection whose statements are all done, or none."""
        self._make_ready()
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for statements that change nothing."""
        self._make_ready()
        with self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def create_tables(self) -> None:
        """Make the tables that are missing; processes that do so at once wait for each other."""
        if self.is_sqlite and self._url.database not in (None, "", ":memory:"):
            os.makedirs(os.path.dirname(os.path.abspath(str(self._url.database))), exist_ok=True)
        with self.engine.begin() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            metadata.create_all(connection)
        self._is_ready = True

    def _make_ready(self) -> None:
        if not self._is_ready:
            self.create_tables()

    def check(self) -> None:
        """Ask the database for an answer; raises SQLAlchemy's error where there is none."""
        with self.reading() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close the connections; the next use would open new ones."""
        self.engine.dispose()


def insert_new(connection: Connection, table: Table, values: Any) -> int:
    """Insert a row, or rows, where no unique key is in the way; return how many."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    rows: list[Mapping[str, Any]] = values if isinstance(values, list) else [values]
    if not rows:
        return 0
    statement = dialect.insert(table).values(rows).on_conflict_do_nothing()
    return connection.execute(statement).rowcount


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy says so
    _write_ahead(connection)
    connection.execute("PRAGMA foreign_keys=ON")


def _write_ahead(connection: Any) -> None:
    # Of those that open a new file at once, SQLite refuses all but one, and does not wait for its
    # turn as it does otherwise.
    give_up = time.monotonic() + SQLITE_PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        # A transaction that reads first and writes later could fail where another one wrote
        # meanwhile; this one waits for it at its beginning.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
