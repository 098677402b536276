"""Database engines: pooled, checked, safe after a fork."""

from __future__ import annotations

import logging
import math
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import QueuePool, StaticPool

from ..errors import LedgerError
from ..plain.forks import around_forks
from ..plain.urls import mask_url
from .dialects import Database, database_of
from .dialects.database import WILL_WRITE
from .failures import drop_read_only_sessions
from .fork_gate import gate, gated
from .watch import Watch, allow

logger = logging.getLogger(__name__)

#: Default of ``DATABASE_TIMEOUT``: seconds without an answer until a connection is given up.
TIMEOUT = 10.0

#: Options of a pool that has a size, which makes no sense where there is one connection.
_OF_QUEUES = frozenset(("pool_size", "max_overflow", "pool_timeout", "pool_use_lifo", "poolclass"))
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
    try:
        parsed = make_url(url)
        database = database_of(parsed)
        parsed = database.with_driver(parsed)
        if "@" in (parsed.host or ""):
            raise LedgerError(
                f"The password in the database URL {mask_url(url)!r} holds an @: write it as %40."
            )
        database.make_folder(parsed)
        settings = _settings(parsed, database, timeout, options)
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
    database.prepare(engine, settings.get("isolation_level") == "AUTOCOMMIT")
    if database.is_in_process:
        _close_with(engine)
    elif timeout and _is_watched(parsed, database, timeout):
        if pings is not None:
            ping_after = 0 if pings else math.inf
        limit = _connect_limit(engine, settings["connect_args"])
        watch = Watch(
            engine,
            database,
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
    with engine.connect() as connection:
        allow(connection, patience)
        connection = connection.execution_options(**{WILL_WRITE: True})
        with connection.begin():
            yield connection


def same_database(one: str, other: str) -> bool:
    """Tell whether two URLs lead to one database, whatever the role and the driver."""
    first, second = make_url(one), make_url(other)
    if is_memory(first) or is_memory(second):
        return False  # each is one of its own
    return database_of(first).address(first) == database_of(second).address(second)


def is_memory(url: URL) -> bool:
    """Tell whether the URL is of an SQLite database that lives in memory."""
    return database_of(url).is_memory(url)


def _is_watched(url: URL, database: Database, timeout: float | None) -> bool:
    return bool(timeout) and url.get_driver_name() in database.watched_drivers


def _settings(
    url: URL, database: Database, timeout: float | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of ``create_engine``: ours, and over them the caller's."""
    # Values are people's data: they stay out of error messages.
    settings: dict[str, Any] = {"hide_parameters": True}
    # A file does not hang up, and to ask it would double the statements of a write.
    settings["pool_pre_ping"] = not database.is_in_process
    settings |= database.engine_options
    if database.is_memory(url):
        # One connection is one database, so that all threads must share it.
        options = {name: value for name, value in options.items() if name not in _OF_QUEUES}
        options["poolclass"] = StaticPool
    else:
        settings |= {"pool_size": 2, "pool_recycle": 3600}
    connect = database.connect_arguments(url, timeout)
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
        settings["isolation_level"] = database.isolation_level(level)
    if "pool_size" not in options and not issubclass(
        settings.get("poolclass", QueuePool), QueuePool
    ):
        settings.pop("pool_size", None)  # not every pool has one
    if _is_watched(url, database, timeout):
        settings["pool_pre_ping"] = False  # the watch does it, which looks at its time
    if settings.get("pool") is not None:  # made by the application, with all that belongs to it
        settings = {
            name: value
            for name, value in settings.items()
            if name in options or not name.startswith("pool_")
        }
    elif database.is_in_process and not database.is_memory(url):
        settings["poolclass"] = gated(settings.get("poolclass", QueuePool))
    return settings


def _connect_limit(engine: Engine, arguments: dict[str, Any]) -> float | None:
    """Return how many seconds the driver may take to connect, to all hosts of a list."""
    given = {**engine.url.query, **arguments}
    seconds = float(given.get("connect_timeout") or 0)
    hosts = given.get("host") or ""
    count = len(hosts) if isinstance(hosts, tuple) else str(hosts).count(",") + 1
    return seconds * count + 1 if seconds > 0 else None


def _close_with(engine: Engine) -> None:
    """Close what is open when nobody has the engine any more, or at the process's end.

    SQLite's driver leaves that to us (Python 3.13 warns of what we forget), and the pool to whoever
    has the engine; nobody closes Celery's result backends.
    """
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
        if engine in _opened and not is_memory(engine.url):
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
