"""Child processes with their log in a file, and waiting for conditions instead of sleeping."""

from __future__ import annotations

import glob
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: Where servers live that are not on an ordinary user's PATH (or where there is no PATH at all).
STANDARD_FOLDERS = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/opt/homebrew/sbin",
    "/opt/homebrew/bin",
)


def wait_until(
    predicate: Callable[[], T | None],
    timeout: float = 10.0,
    what: str = "the condition",
    interval: float = 0.02,
) -> T:
    """Call ``predicate`` until it returns something true, and return that.

    Args:
        predicate: what to ask; its exceptions pass through.
        timeout: seconds until this gives up.
        what: names the condition in the error.
        interval: seconds between two calls.

    Raises:
        AssertionError: the predicate was still false after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(interval)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on.

    It lies below the ports that the system gives to outgoing connections. From those, a client that
    tries again and again to reach a stopped server may be given the server's own port.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def find_program(name: str, *patterns: str) -> str | None:
    """Return the path of a program, or None.

    Args:
        name: the program's name.
        patterns: folders to look in first, as globs; of several matches the newest version wins.
    """
    folders = [folder for pattern in patterns for folder in _newest_first(glob.glob(pattern))]
    search = [*folders, *os.environ.get("PATH", "").split(os.pathsep), *STANDARD_FOLDERS]
    return shutil.which(name, path=os.pathsep.join(filter(None, search)))


def _newest_first(paths: list[str]) -> list[str]:
    return sorted(paths, key=lambda path: [int(n) for n in re.findall(r"\d+", path)], reverse=True)


class Process:
    """A child process in a process group of its own; everything it prints goes to a log file."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Prepare a process; :meth:`start` starts it.

        Args:
            command: program and arguments.
            log: file to append its output to.
            name: what errors call it; default the program's name.
            env: variables to set beside those of this process.
            cwd: its working directory; default this process's.
            user: account to run as (only for root).
            stop_signal: what asks it to end.
        """
        self.command = [str(part) for part in command]
        self.log = log
        self.name = name or Path(self.command[0]).name
        self.env = dict(env or {})
        self.cwd = cwd
        self.user = user
        self.stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The process id; only after :meth:`start`."""
        return self._started().pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._started().poll()

    def start(self) -> Process:
        """Start it, or start it again after its end. Returns itself."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already, as process {self.pid}")
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._die_with_parent(), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env},
                cwd=self.cwd,
                start_new_session=True,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
            )
        return self

    def _die_with_parent(self) -> list[str]:
        # A test run that is killed cannot tidy up: Linux then tells the child to stop.
        setpriv = find_program("setpriv")
        return [setpriv, "--pdeathsig", self.stop_signal.name[3:], "--"] if setpriv else []

    def log_text(self, since_start: bool = False) -> str:
        """Return what it printed, in all its runs or since the last start."""
        if not self.log.exists():
            return ""
        data = self.log.read_bytes()
        return data[self._log_start if since_start else 0 :].decode(errors="replace")

    def log_tail(self, lines: int = 60) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    def wait_for(
        self, predicate: Callable[[], T | None], timeout: float = 30.0, what: str = "it"
    ) -> T:
        """Wait as :func:`wait_until`, but fail at once, with the log, where the process ends."""

        def ask() -> T | None:
            running = self.running  # Asked first: what it does at its very end still counts.
            value = predicate()
            if not value and not running:
                raise AssertionError(f"it ended with code {self.returncode} before {what}")
            return value

        try:
            return wait_until(ask, timeout, what)
        except AssertionError as error:
            raise AssertionError(f"{self.name}: {error}\n{self.log_tail()}") from error

    def wait_for_log(self, pattern: str, timeout: float = 30.0) -> re.Match[str]:
        """Wait until what it printed since its start matches a regular expression."""
        return self.wait_for(
            lambda: re.search(pattern, self.log_text(since_start=True)),
            timeout,
            f"a log line with {pattern!r}",
        )

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for its end and return the exit code, negative for a signal."""
        try:
            return self._started().wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} still runs after {timeout:g} s\n{self.log_tail()}"
            ) from None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, not to its children."""
        self._started().send_signal(number)

    def stop(self, timeout: float = 15.0) -> int | None:
        """Ask it to end; kill its process group if it has not after ``timeout`` seconds.

        Returns its exit code, None where it was never started. Children that it left behind in its
        group are killed as well.
        """
        if self._process is None:
            return None
        if self.running:
            self.send_signal(self.stop_signal)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
        return self.kill()

    def kill(self) -> int:
        """SIGKILL for the process and all of its group. Returns the exit code."""
        process = self._started()
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process
