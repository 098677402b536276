"""Log files that rotate, and reports to Sentry."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

from ..errors import ConfigError

#: Each log file is rotated at this size, in bytes, and this many old ones are kept.
MAX_BYTES = 10 * 2**20
BACKUPS = 5
FORMAT = "%(asctime)s %(levelname)s %(processName)s %(name)s: %(message)s"


#: The handlers of this process, by path.
_handlers: dict[str, SharedFileHandler] = {}


class SharedFileHandler(logging.Handler):
    """Appends to a file that many processes write, and rotates it, one of them at a time.

    ``logging``'s own ``RotatingFileHandler`` is for one process: each of several renames the file
    of the others, and writes on into an old one. This one holds a lock of the file while it writes
    a record, in one piece, and writes into the file that has the name, also where another process
    (or ``logrotate``) has renamed the one before. The lock is a process's own, also after a fork,
    and is free when the process is gone. On a file system without locks it does without.

    Args:
        path: the file; it is made at once.
        max_bytes: it is rotated before a record would make it larger, in bytes.
        backups: how many old files are kept, as ``path.1``, the newest, and so on.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str, max_bytes: int = MAX_BYTES, backups: int = BACKUPS) -> None:
        super().__init__()
        self.baseFilename = os.path.abspath(path)
        self.max_bytes = max_bytes
        self.backups = backups
        self._file = self._open()

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._file < 0

    def _open(self) -> int:
        return os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; an error is handled as every handler of ``logging`` does."""
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            while not self._append(line):
                pass  # into the file that was rotated away: once more, into the new one
        except Exception:  # a program must not fail of its log
            self.handleError(record)

    def _append(self, line: bytes) -> bool:
        with self._locked():
            size = self._size()
            if size is None:
                self._open_again()
                return False
            if size and size + len(line) > self.max_bytes and self._rotate():
                return False
            while line:
                line = line[os.write(self._file, line) :]
            return True

    def _open_again(self) -> None:
        new = self._open()
        os.close(self._file)
        self._file = new

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Of the process, not of the open file, which forked processes share.
        with suppress(OSError):
            fcntl.lockf(self._file, fcntl.LOCK_EX)
        file = self._file
        try:
            yield
        finally:
            if file == self._file:  # closing it has freed the lock
                with suppress(OSError):
                    fcntl.lockf(file, fcntl.LOCK_UN)

    def _size(self) -> int | None:
        """The file's size in bytes; None if it is no longer the one of its name."""
        mine = os.fstat(self._file)
        try:
            named = os.stat(self.baseFilename)
        except FileNotFoundError:
            return None
        return mine.st_size if os.path.samestat(mine, named) else None

    def _rotate(self) -> bool:
        """Give the file another name; False where that is not allowed, and it grows on."""
        path = self.baseFilename
        names = [path, *(f"{path}.{number}" for number in range(1, self.backups + 1))]
        # The last step takes the file's own name: until then all others wait for the lock.
        for old, new in reversed(list(pairwise(names))):
            try:
                os.replace(old, new)
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Close the file."""
        self.acquire()
        try:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
        finally:
            self.release()
            super().close()


def log_to_files(folder: str | bool) -> None:
    """Write the root logger's records to ``app.info.log`` and its errors to ``app.error.log``.

    A file is rotated at 10 MiB and five old ones are kept, whatever number of processes writes
    into that folder. Other handlers go on with the level that they had. Calling it again changes
    nothing.

    Args:
        folder: where the files go; True means the current folder.

    Raises:
        ConfigError: the folder cannot be written.
    """
    where = os.getcwd() if folder is True else os.path.abspath(os.path.expanduser(str(folder)))
    handlers = []
    for name, level in (("app.info.log", logging.INFO), ("app.error.log", logging.ERROR)):
        path = os.path.join(where, name)
        try:
            os.makedirs(where, exist_ok=True)
            handlers.append(_handler_of(path, level))
        except OSError as exc:
            raise ConfigError(
                f"SETUP_FILE_LOGGING: {path} cannot be written ({exc.strerror}): give a folder "
                f"that this user may write."
            ) from exc
    root, tasks = logging.getLogger(), logging.getLogger("celery.task")
    _add(root, handlers)
    if not tasks.propagate:  # as in a worker, whose tasks' loggers are below this one
        _add(tasks, handlers)


def _handler_of(path: str, level: int) -> SharedFileHandler:
    """Return this process's one handler of a file: a second one would not heed its lock."""
    handler = _handlers.get(path)
    if handler is None or handler.is_closed:
        handler = _handlers[path] = SharedFileHandler(path)
        handler.setLevel(level)
        handler.setFormatter(logging.Formatter(FORMAT))
    return handler


def _add(logger: logging.Logger, handlers: list[SharedFileHandler]) -> None:
    if logger.level > logging.INFO:
        for other in logger.handlers:
            if other.level == logging.NOTSET:
                other.setLevel(logger.level)
    if logger.level > logging.INFO or logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    for handler in handlers:
        logger.addHandler(handler)


def report_to_sentry(environ: Any = os.environ) -> None:
    """Start sentry-sdk with its Celery integration.

    It reads ``SENTRY_DSN``, ``SENTRY_NAME``, ``SENTRY_ENVIRONMENT`` and ``SENTRY_RELEASE``.

    Raises:
        ConfigError: sentry-sdk is not installed, or there is no DSN.
    """
    try:
        import sentry_sdk  # an optional package
        from sentry_sdk.integrations.celery import CeleryIntegration
    except ImportError as exc:
        raise ConfigError(
            "SETUP_SENTRY_LOGGING: install it with pip install cadasta-workertoolbox[sentry]."
        ) from exc
    dsn = environ.get("SENTRY_DSN")
    if not dsn:
        raise ConfigError("SETUP_SENTRY_LOGGING: set the environment variable SENTRY_DSN.")
    sentry_sdk.init(
        dsn=dsn,
        integrations=[CeleryIntegration()],
        server_name=environ.get("SENTRY_NAME"),
        environment=environ.get("SENTRY_ENVIRONMENT"),
        release=environ.get("SENTRY_RELEASE"),
    )
