"""The embedded broker's SQLite file (transactions, errors, threads, forks) and named pipes."""

from __future__ import annotations

import os
import select
import sqlite3
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from errno import ENXIO
from time import monotonic, sleep
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from ...errors import BrokerError, BrokerUnavailableError
from ...plain.backoff import Backoff
from ...plain.forks import around_forks

T = TypeVar("T")

APPLICATION = 0x43575442  # "CWTB": tells a broker's file from any other SQLite database
LAYOUT = 1
SCHEMA = """
CREATE TABLE exchange (name TEXT PRIMARY KEY, type TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE queue (name TEXT PRIMARY KEY, temporary INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE binding (exchange TEXT, routing_key TEXT, queue TEXT,
    PRIMARY KEY (exchange, routing_key, queue)) WITHOUT ROWID;
CREATE TABLE topology (version INTEGER NOT NULL);
INSERT INTO topology VALUES (1);
CREATE TABLE message (id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL,
    rank INTEGER NOT NULL, consumer INTEGER, deadline REAL, redelivered INTEGER NOT NULL DEFAULT 0,
    head TEXT NOT NULL, body);
CREATE INDEX message_ready ON message (queue, rank, id) WHERE consumer IS NULL;
CREATE INDEX message_taken ON message (consumer, deadline) WHERE consumer IS NOT NULL;
CREATE TABLE consumer (id INTEGER PRIMARY KEY);
CREATE TABLE holder (queue TEXT, consumer INTEGER, PRIMARY KEY (queue, consumer)) WITHOUT ROWID;
CREATE TABLE waiting (queue TEXT, consumer INTEGER, PRIMARY KEY (queue, consumer)) WITHOUT ROWID
"""
WAL_BYTES = 16 * 1024 * 1024  # a longer write-ahead log is cut back after a checkpoint

_files: weakref.WeakSet[File] = weakref.WeakSet()
_fork_lock = threading.RLock()
_forking: list[File] = []  # those that wait for the other side of a fork


def url_for(path: str | os.PathLike[str]) -> str:
    """Return the broker URL of the file at `path` (made absolute, special characters quoted)."""
    return "embedded:///" + quote(os.path.abspath(path))


def path_of(url: str) -> str:
    """Return the absolute path that the broker URL `url` names; BrokerError if it names none."""
    scheme, _, rest = url.partition("://")
    if scheme != "embedded" or not rest.startswith("/") or not rest.strip("/"):
        raise BrokerError(
            f"The broker URL {url!r} names no file: write embedded:////absolute/path/to/file "
            "(four slashes) or embedded:///relative/path (three)."
        )
    return os.path.abspath(unquote(rest[1:]))


class File:
    """The broker's file, as one connection sees it; safe with threads and forks.

    Arguments: `path`; `busy_timeout` in seconds; `synchronous`, SQLite's pragma.
    """

    def __init__(self, path: str, busy_timeout: float = 10.0, synchronous: str = "NORMAL") -> None:
        self.lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self.path = path
        self.busy_timeout = busy_timeout
        self.synchronous = synchronous
        if synchronous not in ("OFF", "NORMAL", "FULL", "EXTRA"):
            raise BrokerError(
                f"Transport option synchronous={synchronous!r}: use OFF, NORMAL, FULL or EXTRA."
            )
        _watch_forks(self)

    def read(self, do: Callable[[sqlite3.Connection], T]) -> T:
        """Return `do(database)`, that only reads; it may run more than once."""
        with self.lock:
            try:
                database = self._database = self._database or self._open()
                return self._patiently(lambda: do(database))
            except sqlite3.Error as error:
                raise self._explained(error) from error

    def write(self, do: Callable[[sqlite3.Connection], T]) -> T:
        """Return `do(database)`, run in one transaction: all of it is kept, or nothing."""
        with self.lock:
            try:
                database = self._database = self._database or self._open()
                self._patiently(lambda: database.execute("BEGIN IMMEDIATE"))
                try:
                    result = do(database)
                    database.execute("COMMIT")
                finally:
                    if database.in_transaction:
                        database.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise self._explained(error) from error
            return result

    def rows(self, query: str, *values: object) -> list[Any]:
        """Return the rows of one query."""
        return self.read(lambda db: db.execute(query, values).fetchall())

    def close(self) -> None:
        """Close the connection to the file; the next use opens a new one."""
        with self.lock:
            database, self._database = self._database, None
            if database is not None:
                database.close()

    def forked(self) -> None:
        """Give up, in a forked child, what is the parent's."""
        self.lock = threading.RLock()

    def _open(self) -> sqlite3.Connection:
        folder = os.path.dirname(self.path)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise BrokerError(
                f"The broker's folder {folder} cannot be made: {error.strerror}. Make it, or name "
                "another file in the broker URL."
            ) from error
        database = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            # Looked at before anything is changed: the file may be somebody else's.
            empty = self._patiently(lambda: self._is_empty(database))
            mode = self._patiently(lambda: database.execute("PRAGMA journal_mode=WAL").fetchone())
            if mode != ("wal",):
                raise BrokerError(
                    f"The broker's file {self.path} cannot have a write-ahead log where it is. "
                    "Name a file on a local disk in the broker URL."
                )
            database.execute(f"PRAGMA synchronous={self.synchronous}")
            database.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")
            if empty:
                self._patiently(lambda: database.execute("BEGIN IMMEDIATE"))
                if self._is_empty(database):
                    for statement in SCHEMA.split(";"):
                        database.execute(statement)
                    database.execute(f"PRAGMA application_id={APPLICATION}")
                    database.execute(f"PRAGMA user_version={LAYOUT}")
                database.execute("COMMIT")
        except BaseException:
            database.close()
            raise
        return database

    def _is_empty(self, database: sqlite3.Connection) -> bool:
        application, layout, tables = database.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
            " FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if tables and application != APPLICATION:
            raise BrokerError(
                f"{self.path} is a SQLite database, but not a broker's. Name another file in the "
                "broker URL."
            )
        if tables and layout != LAYOUT:
            raise BrokerError(
                f"The broker's file {self.path} has layout {layout}, this release knows layout "
                f"{LAYOUT}. Use the release that made it, or name another file."
            )
        return not tables

    def _patiently(self, execute: Callable[[], T]) -> T:
        # SQLite's own busy handler sleeps up to 100 ms at a time and is not asked in every case
        # (the switch to WAL, recovery), so that we wait ourselves, in short random steps.
        give_up = monotonic() + self.busy_timeout
        retry = Backoff(0.0001, 0.005, factor=1.5)
        while True:
            try:
                return execute()
            except sqlite3.OperationalError as error:
                if "lock" not in str(error) or monotonic() > give_up:
                    raise
            sleep(retry.next())

    def _explained(self, error: sqlite3.Error) -> BrokerError:
        self.close()  # what is wrong with it may be right when it is opened anew
        text = str(error)
        if "lock" in text:
            return BrokerUnavailableError(
                f"The broker's file {self.path} was locked for more than {self.busy_timeout} s. "
                "Try again, or raise the transport option busy_timeout."
            )
        if isinstance(error, sqlite3.DataError) or "too big" in text:
            return BrokerError(
                f"The broker's file {self.path} does not take a message ({text}): SQLite holds "
                "1,000,000,000 bytes at most. Keep large values elsewhere, and pass their place."
            )
        if "not a database" in text or "malformed" in text:
            return BrokerError(
                f"The broker's file {self.path} is damaged or no SQLite database ({text}). Move it "
                "away, or name another file in the broker URL."
            )
        if "unable to open" in text or "readonly" in text:
            return BrokerError(
                f"The broker's file {self.path} cannot be opened for writing ({text}). Check that "
                "this user may write to it and in its folder, or name another file."
            )
        return BrokerUnavailableError(
            f"The broker's file {self.path} cannot be used ({text}); nothing was changed. Check "
            "the free space and the health of its disk, then try again."
        )


class Pipe:
    """The named pipe of a consumer, that wakes it and tells whether it lives.

    A pipe that nobody reads is a dead process's: the kernel closes it, however the process ends.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.mkfifo(path)
            self.read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            # A writing end of our own, so that the reading end never reports the pipe's end.
            self._write = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            raise BrokerError(
                f"The consumer's named pipe {path} cannot be made: {error.strerror}. The broker's "
                "file must be in a folder of a local disk that this user may write to."
            ) from error

    def ring(self) -> None:
        """Wake ourselves."""
        with suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def clear(self) -> None:
        """Be ready for the next ring."""
        with suppress(BlockingIOError):
            os.read(self.read, 65536)

    def wait(self, seconds: float) -> bool:
        """Sleep until woken (True) or for so long (False)."""
        poll = select.poll()
        poll.register(self.read, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        self.clear()
        return True

    def close(self) -> None:
        """Close it; the file remains."""
        os.close(self.read)
        os.close(self._write)


def is_read(path: str, ring: bool = False) -> bool:
    """Tell whether a process reads a consumer's named pipe, and wake it with `ring`."""
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        # Only this one is the kernel's word that nobody does; a pipe that is missing, or not ours
        # to open, says nothing.
        return error.errno != ENXIO
    try:
        if ring:
            with suppress(BlockingIOError, BrokenPipeError):  # full: it is awake anyhow
                os.write(pipe, b"\0")
    finally:
        os.close(pipe)
    return True


def _watch_forks(file: File) -> None:
    """Close the files around each fork.

    SQLite forbids more than the use of a connection in a child: the child also inherits SQLite's
    notes of the locks that the process holds, believes them and takes none itself, and the parent,
    when it closes, deletes a write-ahead log in which the child goes on writing. So no connection
    may be open at a fork; each side opens its own when it next needs one.
    """
    with _fork_lock:
        around_forks(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )
        _files.add(file)


def _before_fork() -> None:
    _fork_lock.acquire()
    for file in list(_files):
        file.lock.acquire()
        _forking.append(file)
        file.close()


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().lock.release()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    while _forking:
        _forking.pop().forked()
    _fork_lock.release()
