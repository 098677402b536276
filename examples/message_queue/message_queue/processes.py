"""Starting the programs of this package as processes: for the demonstration, and for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from .errors import MessageQueueError
from .settings import HOST

#: Seconds that a process has to be ready, or to end.
PATIENCE = 30.0


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Process:
    """One program of this package.

    Args:
        name: names its log.
        arguments: those of this Python.
        folder: where it runs, and where its log is.
        environ: variables beside those of this process.
    """

    def __init__(
        self, name: str, arguments: list[str], folder: Path, environ: Mapping[str, str]
    ) -> None:
        self.name = name
        self.folder = folder
        self.log = folder / f"{name}.log"
        self._arguments = arguments
        self._environ = {**os.environ, **environ, "PYTHONUNBUFFERED": "1"}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The number of the process, which was started."""
        assert self._process is not None  # noqa: S101
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it."""
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, *self._arguments],
                cwd=self.folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self, number: int = signal.SIGTERM, timeout: float = PATIENCE) -> int | None:
        """Send a signal and wait; the exit code, or None where it was not started.

        Raises:
            subprocess.TimeoutExpired: it has not ended; it is killed.
        """
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def kill(self) -> None:
        """End it with SIGKILL: it has no time to put anything in order."""
        self.stop(signal.SIGKILL)


class ServerProcess(Process):
    """A server on a port of this machine, by default on a free one."""

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        port: int | None = None,
        name: str = "server",
    ) -> None:
        self.port = port or free_port()
        arguments = ["-m", "message_queue", "start", "--port", str(self.port)]
        super().__init__(name, arguments, folder, environ)

    def start(self) -> None:
        """Start it, and wait until it listens.

        Raises:
            MessageQueueError: it does not; says what it logged.
        """
        super().start()
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            if not self.is_running or time.monotonic() > deadline:
                raise MessageQueueError(f"the server did not start:\n{self.log.read_text()}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), 1).close()
        except OSError:
            return False
        return True


class MonitorProcess(Process):
    """The toolbox's monitor, which moves the copies of all messages into the ledger."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        arguments = ["-m", "celery", "-A", "message_queue", "monitor"]
        super().__init__("monitor", arguments, folder, environ)
