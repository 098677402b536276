"""Database engines: pooled, checked, safe after a fork; and the functions on their URLs.

SQLAlchemy is imported inside the functions that make engines only: the configuration needs the
URL functions in every process, and most producers need no database.
"""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .errors import LedgerError
from .urls import build_url, database_url, mask_url

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

__all__ = [
    "build_url",
    "database_url",
    "is_memory",
    "make_engine",
    "mask_url",
    "same_database",
    "writing",
]

#: Seconds that SQLite waits for another process's transaction.
BUSY_TIMEOUT = 30
#: Seconds to wait for a connection to a database server.
CONNECT_TIMEOUT = 10

_IMMEDIATE = "workertoolbox_immediate"
#: Names under which URLs mean the same server.
_BACKENDS = {"mariadb": "mysql", "postgres": "postgresql"}
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_hooks: list[bool] = []


def make_engine(url: str, **options: Any) -> Engine:
    """Return a new engine: small pool, checked connections, safe after a fork.

    SQLite files are opened in WAL mode and wait up to 30 seconds for each other; a missing
    folder is created. ``options`` go to SQLAlchemy's ``create_engine`` and win over the
    defaults. Raises :class:`LedgerError` for a URL that is none or a driver that is missing.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    from .failures import drop_read_only_sessions  # SQLAlchemy

    try:
        parsed = _with_driver(make_url(url))
        if "@" in (parsed.host or ""):
            raise LedgerError(
                f"The password in the database URL {mask_url(url)!r} holds an @: write it as %40."
            )
        settings = _settings(parsed)
        if "poolclass" in options:
            settings.pop("pool_size", None)  # not every pool has one
        arguments = settings["connect_args"] | options.get("connect_args", {})
        engine = create_engine(parsed, **settings | options | {"connect_args": arguments})
    except NoSuchModuleError:
        raise LedgerError(
            f"The database URL {mask_url(url)!r} names a database or driver that SQLAlchemy "
            "does not know: use postgresql://, sqlite:/// or mysql+pymysql://."
        ) from None
    except (ArgumentError, ValueError):  # the latter of a port that is no number
        raise LedgerError(
            f"{mask_url(url)!r} is not a database URL: it should look like "
            "postgresql://user:password@host:5432/name."
        ) from None
    except ImportError as exc:
        raise LedgerError(
            f"The driver of the database URL {mask_url(url)!r} is not installed ({exc}): "
            "pip install psycopg2-binary for PostgreSQL, PyMySQL for MySQL and MariaDB."
        ) from None
    except OSError as exc:
        raise LedgerError(f"The folder of {mask_url(url)!r} cannot be made: {exc}.") from None
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, options.get("isolation_level") == "AUTOCOMMIT")
    drop_read_only_sessions(engine)
    _survive_forks(engine)
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction that will write: committed, or rolled back on error.

    On SQLite it takes the write lock at once: a transaction that begins by reading and then
    writes fails if another process wrote meanwhile.
    """
    with engine.connect() as connection:
        connection = connection.execution_options(**{_IMMEDIATE: True})
        with connection.begin():
            yield connection


def same_database(one: str, other: str) -> bool:
    """Tell whether two URLs lead to one database, whatever the role and the driver."""
    from sqlalchemy.engine import make_url

    first, second = make_url(one), make_url(other)
    if is_memory(first) or is_memory(second):
        return False  # each is one of its own
    return _place(first) == _place(second)


def _place(url: URL) -> tuple[str, str, int, str]:
    backend = _BACKENDS.get(url.get_backend_name(), url.get_backend_name())
    if backend == "sqlite":
        return backend, "", 0, os.path.abspath(url.database or "")
    port = url.port or {"postgresql": 5432, "mysql": 3306}.get(backend, 0)
    host = url.host or str(url.query.get("host", ""))
    return backend, host.lower(), port, url.database or url.username or ""


def is_memory(url: URL) -> bool:
    """Tell whether the URL is of an SQLite database that lives in memory."""
    name = url.database or ""
    return url.get_backend_name() == "sqlite" and (
        name in ("", ":memory:") or ":memory:" in name or url.query.get("mode") == "memory"
    )


def _with_driver(url: URL) -> URL:
    # SQLAlchemy 2.1 takes psycopg 3 where none is named; psycopg2 is what we require.
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg2")
    if url.drivername in ("mysql", "mariadb") and find_spec("MySQLdb") is None:
        return url.set(drivername=f"{url.drivername}+pymysql")
    return url


def _settings(url: URL) -> dict[str, Any]:
    from sqlalchemy.pool import StaticPool

    # Values are people's data: they stay out of error messages.
    settings: dict[str, Any] = {"hide_parameters": True, "pool_pre_ping": True}
    if is_memory(url):
        # One connection is one database, so that all threads must share it.
        return settings | {
            "poolclass": StaticPool,
            "connect_args": {"check_same_thread": False},
        }
    settings |= {"pool_size": 2, "pool_recycle": 3600}
    connect: dict[str, Any] = {}
    backend, driver = url.get_backend_name(), url.get_driver_name()
    if backend == "sqlite":
        connect["timeout"] = BUSY_TIMEOUT
        folder = os.path.dirname(url.database or "")
        if folder and not (url.database or "").startswith("file:"):
            os.makedirs(folder, exist_ok=True)
    elif driver in ("psycopg2", "psycopg", "pymysql", "mysqldb"):
        if "connect_timeout" not in url.query:
            connect["connect_timeout"] = CONNECT_TIMEOUT
        if backend == "postgresql" and "application_name" not in url.query:
            connect["application_name"] = "cadasta-workertoolbox"
    if backend in ("mysql", "mariadb"):
        # Its default, REPEATABLE READ, locks gaps, so that two monitors would deadlock.
        settings["isolation_level"] = "READ COMMITTED"
    return settings | {"connect_args": connect}


def _prepare_sqlite(engine: Engine, autocommit: bool) -> None:
    from sqlalchemy import event

    def connected(connection: Any, record: object) -> None:
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

    def began(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("isolation_level", "AUTOCOMMIT" if autocommit else "") == "AUTOCOMMIT":
            return
        immediate = options.get(_IMMEDIATE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", began)


def _write_ahead(cursor: Any) -> None:
    deadline = time.monotonic() + BUSY_TIMEOUT
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
            time.sleep(0.01)


def _survive_forks(engine: Engine) -> None:
    if not hasattr(os, "register_at_fork"):
        return  # no fork on this system
    if not _hooks:
        _hooks.append(True)
        os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
    _engines.add(engine)


def _before_fork() -> None:
    # An SQLite connection must not cross a fork: its locks belong to one process, and even
    # closing it in the child is wrong. Idle ones are closed; the parent opens them again.
    for engine in list(_engines):
        if engine.dialect.name == "sqlite" and not is_memory(engine.url):
            engine.dispose()


def _after_fork() -> None:
    # The sockets belong to the parent: the child forgets them without a word to the server.
    for engine in list(_engines):
        if not is_memory(engine.url):
            engine.dispose(close=False)
