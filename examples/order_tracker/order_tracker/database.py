"""The engine and its transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, text
from sqlalchemy.engine import make_url

from cadasta.workertoolbox.sql.engines import make_engine

from .errors import NotInitialisedError
from .settings import DEFAULT_MAX_QUEUE, DEFAULT_STALL_TIMEOUT
from .tables import feed, metadata

#: Seconds that a writer waits for SQLite's one write lock.
_SQLITE_PATIENCE = 30
#: How long PostgreSQL bears a process that has stopped in the middle of a transaction: it may hold
#: the lock that all others wait for.
_PG_PATIENCE = "30s"
#: The key of PostgreSQL's advisory lock around the making of the tables; any number of our own.
_LOCK_KEY = 7_205_759_403
#: The line is a queue, and its index must not fill with rows that have left it.
_PG_VACUUM = (
    "ALTER TABLE orders SET (autovacuum_vacuum_scale_factor = 0.01,"
    " autovacuum_vacuum_threshold = 500)"
)


def utc_now() -> datetime:
    """This moment, aware, in UTC."""
    return datetime.now(timezone.utc)


class Database:
    """The orders' database.

    Args:
        url: a SQLAlchemy URL of PostgreSQL or of a SQLite file; the file's folder is made.
        pool_size: most connections at a time.
    """

    def __init__(self, url: str, pool_size: int = 10) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0}
        if self.is_sqlite:
            Path(self.url.database or "").parent.mkdir(parents=True, exist_ok=True)
            options["connect_args"] = {"timeout": _SQLITE_PATIENCE, "check_same_thread": False}
            self.engine: Engine = create_engine(self.url, **options)
        else:
            # It asks connections before their use, and gives up a server that does not answer.
            address = self.url.render_as_string(hide_password=False)
            self.engine = make_engine(address, pool_recycle=1800, **options)
        self._writing = self.engine.execution_options(order_tracker_writes=True)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _set_up_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "connect", _set_up_postgres)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write; commits at the end, or rolls back on an error."""
        with self._writing.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with self.engine.begin() as connection:
            yield connection

    def create_tables(self, max_queue: int | None, stall_timeout: float | None) -> None:
        """Make what is missing; several processes may do it at once.

        Args:
            max_queue: most units in flight; None leaves what is there, or takes 50.
            stall_timeout: seconds; None leaves what is there, or takes 300.
        """
        with self.write() as connection:
            if not self.is_sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})"))
            metadata.create_all(connection)
            if not self.is_sqlite:
                connection.execute(text(_PG_VACUUM))
            if connection.execute(select(feed.c.id)).first() is None:
                row = {
                    "id": 1,
                    "going": False,
                    "max_queue": DEFAULT_MAX_QUEUE,
                    "stall_timeout": DEFAULT_STALL_TIMEOUT,
                }
                connection.execute(insert(feed).values(row))
            change_bounds(connection, max_queue, stall_timeout)

    def require_tables(self) -> None:
        """Check that the tables are there.

        Raises:
            NotInitialisedError: they are not.
        """
        with self.read() as connection:
            if not inspect(connection).has_table(feed.name):
                raise NotInitialisedError(
                    f"{self.url.render_as_string()} has no order tracker's tables: run"
                    " order-tracker init --units 100 with the same settings first."
                )

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def change_bounds(
    connection: Connection, max_queue: int | None, stall_timeout: float | None
) -> None:
    """Set what is given; the bounds are kept in the database, for all processes alike."""
    given = {"max_queue": max_queue, "stall_timeout": stall_timeout}
    values = {name: value for name, value in given.items() if value is not None}
    if values:
        connection.execute(feed.update().values(values))


def _set_up_sqlite(connection: Any, _: Any) -> None:
    # SQLAlchemy begins the transactions (below), not the driver, which would begin too late.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _set_up_postgres(connection: Any, _: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{_PG_PATIENCE}'")
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails where another wrote in between.
    writes = connection.get_execution_options().get("order_tracker_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
