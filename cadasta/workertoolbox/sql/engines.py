"""Database engines: pooled, checked, safe after a fork.

SQLAlchemy is imported inside the functions that make engines only: most producers need no database.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import LedgerError
from ..plain.backoff import Backoff
from ..plain.forks import around_forks
from ..plain.urls import mask_url
from .fork_gate import gate, gated

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

    from .watch import Watch

logger = logging.getLogger(__name__)

#: Seconds that SQLite waits for another process's transaction.
BUSY_TIMEOUT = 30
#: Seconds to wait for a connection to a database server.
CONNECT_TIMEOUT = 10

#: Default of ``DATABASE_TIMEOUT``: seconds without an answer until a connection is given up.
TIMEOUT = 10.0

#: Drivers whose sockets can be watched.
_WATCHED = frozenset(("psycopg2", "psycopg", "pymysql", "mysqldb"))
#: Options of a pool that has a size, which makes no sense where there is one connection.
_OF_QUEUES = frozenset(("pool_size", "max_overflow", "pool_timeout", "pool_use_lifo", "poolclass"))
_IMMEDIATE = "workertoolbox_immediate"
#: Names under which URLs mean the same server.
_BACKENDS = {"mariadb": "mysql", "postgres": "postgresql"}
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_watches: weakref.WeakKeyDictionary[Engine, Watch] = weakref.WeakKeyDictionary()
#: SQLite's connections, by engine; and those of the parent process, which nobody may close here.
_opened: weakref.WeakKeyDictionary[Engine, set[Any]] = weakref.WeakKeyDictionary()
_parents: list[Any] = []


def make_engine(
    url: str,
    *,
    timeout: float | None = TIMEOUT,
    is_bounded: bool = False,
    ping_after: float = 0,
    **options: Any,
) -> Engine:
    """Return a new engine: small pool, checked connections, safe after a fork.

    SQLite files are opened in WAL mode and wait up to 30 seconds for each other; a missing
    folder is created. A server that does not answer is given up; see :mod:`.watch`.

    Args:
        url: an SQLAlchemy URL. What it says of time-outs and keepalives wins over ours.
        timeout: seconds without an answer after which a connection is given up; None or 0: never.
        is_bounded: let no statement take longer, not even where the server is merely busy.
        ping_after: seconds of idleness after which a connection is asked before it is used.
        options: arguments of SQLAlchemy's ``create_engine``, which win over the defaults.

    Raises:
        LedgerError: the URL is none, a driver is missing, or an option cannot be used.
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
        settings = _settings(parsed, timeout, options)
        pings = options.get("pool_pre_ping")
        engine = create_engine(parsed, **settings)
        _check_level(engine, settings.get("isolation_level"))
    except NoSuchModuleError:
        raise LedgerError(
            f"The database URL {mask_url(url)!r} names a database or driver that SQLAlchemy "
            "does not know: use postgresql://, sqlite:/// or mysql+pymysql://."
        ) from None
    except TypeError as exc:  # SQLAlchemy names the argument and what does not take it
        raise LedgerError(
            f"The engine options {', '.join(sorted(options))} cannot be used for "
            f"{mask_url(url)!r}: {mask_url(str(exc)).rstrip('.')}."
        ) from None
    except (ArgumentError, ValueError) as exc:  # the latter of a port that is no number
        if options and _is_url(url):
            raise LedgerError(
                f"The engine options {', '.join(sorted(options))} cannot be used for "
                f"{mask_url(url)!r}: {mask_url(str(exc)).rstrip('.')}."
            ) from None
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
        _prepare_sqlite(engine, settings.get("isolation_level") == "AUTOCOMMIT")
        _close_with(engine)
    elif timeout and _is_watched(parsed, timeout):
        from .watch import Watch  # SQLAlchemy

        if pings is not None:
            ping_after = 0 if pings else math.inf
        limit = _connect_limit(engine, settings["connect_args"])
        watch = Watch(
            engine,
            timeout,
            is_bounded=is_bounded,
            connect_timeout=limit,
            ping_after=ping_after,
        )
        _watches[engine] = watch
    drop_read_only_sessions(engine)
    _ask_inside(engine)
    around_forks(before=_before_fork, after_in_parent=gate.open, after_in_child=_after_fork)
    _engines.add(engine)
    return engine


def hurry(engine: Engine, is_urgent: bool = True) -> None:
    """Wait for this engine's database no longer than a few seconds from now on, or as ever."""
    watch = _watches.get(engine)
    if watch is not None:
        watch.hurry(is_urgent)


def _check_level(engine: Engine, level: str | None) -> None:
    if level is None:
        return
    # SQLAlchemy looks at it when it connects, which may be in a worker that has a result.
    known = engine.dialect.get_isolation_level_values(None)  # type: ignore[arg-type]
    if level not in known:
        raise ValueError(f"isolation_level={level!r} is none of {', '.join(sorted(known))}")


def _is_url(url: str) -> bool:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url) is not None
    except (ArgumentError, ValueError):
        return False


@contextmanager
def writing(engine: Engine, patience: float | None = None) -> Iterator[Connection]:
    """Give a connection in a transaction that will write: committed, or rolled back on error.

    On SQLite it takes the write lock at once: a transaction that begins by reading and then
    writes fails if another process wrote meanwhile.

    Args:
        patience: how many times the engine's time-out it may take where the server answers, but
            not to this; None: any time.
    """
    from .watch import allow  # SQLAlchemy

    with engine.connect() as connection:
        allow(connection, patience)
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


def _is_watched(url: URL, timeout: float | None) -> bool:
    return bool(timeout) and url.get_driver_name() in _WATCHED


def _settings(url: URL, timeout: float | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``create_engine``: ours, and over them the caller's."""
    from sqlalchemy.pool import QueuePool, StaticPool

    # Values are people's data: they stay out of error messages.
    settings: dict[str, Any] = {"hide_parameters": True, "pool_pre_ping": True}
    connect: dict[str, Any] = {}
    backend, driver = url.get_backend_name(), url.get_driver_name()
    if is_memory(url):
        # One connection is one database, so that all threads must share it.
        options = {name: value for name, value in options.items() if name not in _OF_QUEUES}
        options["poolclass"] = StaticPool
        connect["check_same_thread"] = False
    else:
        settings |= {"pool_size": 2, "pool_recycle": 3600}
    if backend == "sqlite" and not is_memory(url):
        connect["timeout"] = BUSY_TIMEOUT
        folder = os.path.dirname(url.database or "")
        if folder and not (url.database or "").startswith("file:"):
            os.makedirs(folder, exist_ok=True)
    elif driver in _WATCHED:
        connect["connect_timeout"] = CONNECT_TIMEOUT
        if backend == "postgresql":
            connect["application_name"] = "cadasta-workertoolbox"
        if timeout:
            connect |= _socket_options(backend, driver, timeout)
    if backend in ("mysql", "mariadb"):
        # Its default, REPEATABLE READ, locks gaps, so that two monitors would deadlock.
        settings["isolation_level"] = "READ COMMITTED"
    connect = {name: value for name, value in connect.items() if name not in url.query}
    connect |= options.get("connect_args") or {}
    execution = dict(options.get("execution_options") or {})
    if "isolation_level" in execution:  # One place for it, which raw connections obey as well.
        settings["isolation_level"] = execution.pop("isolation_level")
    settings |= options | {"connect_args": connect, "execution_options": execution}
    if settings.get("isolation_level") is None:
        settings.pop("isolation_level", None)
    else:
        level = str(settings["isolation_level"]).upper().replace("_", " ")
        if backend == "sqlite" and level in ("READ COMMITTED", "REPEATABLE READ"):
            level = "SERIALIZABLE"  # It has none between; this one promises all that they do.
        settings["isolation_level"] = level
    if "pool_size" not in options and not issubclass(
        settings.get("poolclass", QueuePool), QueuePool
    ):
        settings.pop("pool_size", None)  # not every pool has one
    if _is_watched(url, timeout):
        settings["pool_pre_ping"] = False  # the watch does it, which looks at its time
    if settings.get("pool") is not None:  # made by the application, with all that belongs to it
        settings = {
            name: value
            for name, value in settings.items()
            if name in options or not name.startswith("pool_")
        }
    elif backend == "sqlite" and not is_memory(url):
        settings["poolclass"] = gated(settings.get("poolclass", QueuePool))
    return settings


def _socket_options(backend: str, driver: str, timeout: float) -> dict[str, Any]:
    from .watch import HandshakeLimit, keepalives  # SQLAlchemy

    if backend != "postgresql":
        if driver != "pymysql":
            return {}
        return dict.fromkeys(("read_timeout", "write_timeout"), HandshakeLimit(timeout))
    options = keepalives(timeout)
    return {
        "keepalives_idle": options["TCP_KEEPIDLE"],
        "keepalives_interval": options["TCP_KEEPINTVL"],
        "keepalives_count": options["TCP_KEEPCNT"],
        "tcp_user_timeout": options["TCP_USER_TIMEOUT"],
    }


def _connect_limit(engine: Engine, arguments: dict[str, Any]) -> float | None:
    """Return how many seconds the driver may take to connect, to all hosts of a list."""
    given = {**engine.url.query, **arguments}
    seconds = float(given.get("connect_timeout") or 0)
    hosts = given.get("host") or ""
    count = len(hosts) if isinstance(hosts, tuple) else str(hosts).count(",") + 1
    return seconds * count + 1 if seconds > 0 else None


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


def _close_with(engine: Engine) -> None:
    """Close what is open when nobody has the engine any more, or at the process's end.

    SQLite's driver leaves that to us (Python 3.13 warns of what we forget), and the pool to whoever
    has the engine; nobody closes Celery's result backends.
    """
    from sqlalchemy import event

    opened: set[Any] = set()
    _opened[engine] = opened
    event.listen(engine, "connect", lambda connection, record: opened.add(connection))
    for name in ("close", "close_detached"):
        event.listen(engine, name, lambda connection, *record: opened.discard(connection))
    weakref.finalize(engine, _close_all, opened)


def _close_all(opened: set[Any]) -> None:
    while opened:
        try:
            opened.pop().close()
        except sqlite3.Error as exc:  # of another thread, where the application asked for that
            logger.debug("A connection is not closed: %s", exc)


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


def _ask_inside(engine: Engine) -> None:
    """Let the dialect's questions to a new server be asked inside the gate."""
    initialize = engine.dialect.initialize

    def initialize_inside(connection: Connection) -> None:
        with gate.inside():
            initialize(connection)

    engine.dialect.initialize = initialize_inside  # type: ignore[method-assign]


def _before_fork() -> None:
    gate.shut()
    # An SQLite connection must not cross a fork: its locks belong to one process, and even
    # closing it in the child is wrong. Idle ones are closed; the parent opens them again.
    for engine in list(_engines):
        if engine.dialect.name == "sqlite" and not is_memory(engine.url):
            engine.dispose()


def _after_fork() -> None:
    gate.start_over()
    # The sockets belong to the parent: the child forgets them without a word to the server.
    for engine in list(_engines):
        if not is_memory(engine.url):
            engine.dispose(close=False)
            if (opened := _opened.get(engine)) is not None:
                _parents.extend(opened)
                opened.clear()
