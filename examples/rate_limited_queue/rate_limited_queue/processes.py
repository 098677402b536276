"""Servers as child processes, for the demonstration, the tests and the benchmarks."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .client import Client


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on.

    It lies below those that the system gives to outgoing connections: a client that tries to reach
    a stopped server again and again may be given the server's own port there.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Child:
    """A child process whose output goes to a file.

    Args:
        command: program and arguments.
        log: the file.
        environ: variables beside those of this process.
        cwd: its working directory.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        # A parent that is killed cannot tidy up: Linux then tells the child to stop.
        guard = shutil.which("setpriv")
        prefix = [guard, "--pdeathsig", "TERM", "--"] if guard else []
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603
                [*prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environ or {})},
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def text(self) -> str:
        """Return what it has printed."""
        return self.log.read_text(errors="replace")

    def wait(self, timeout: float) -> int:
        """Wait for its end and return its exit code; raises ``subprocess.TimeoutExpired``."""
        return self._process.wait(timeout)

    def kill(self) -> None:
        """Kill it and its children at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self, timeout: float = 15.0) -> int:
        """Ask it to end, kill it after ``timeout`` seconds, and return its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()
        return self._process.returncode


def wait_ready(child: Child, url: str, timeout: float = 30.0) -> None:
    """Wait until ``GET /`` answers 200.

    Raises:
        RuntimeError: the process ended, or did not answer in time; with what it printed.
    """
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(OSError), Client(url, timeout=5) as client:
            if client.call("GET", "/")[0] == 200:
                return
        if child.ended or time.monotonic() > deadline:
            child.kill()
            raise RuntimeError(f"The server at {url} did not start:\n{child.text()[-4000:]}")
        time.sleep(0.03)


@contextlib.contextmanager
def running_server(
    folder: Path, environ: Mapping[str, str], *options: str, port: int | None = None
) -> Iterator[str]:
    """Have ``rate-limited-queue serve`` run for the time of the block; yields its URL.

    Args:
        folder: where its log goes, and its working directory.
        environ: its settings, as environment variables.
        options: further options of the command.
        port: its port; default a free one.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "rate_limited_queue.cli", "serve", "--port", str(port)]
    child = Child([*command, *options], folder / f"server-{port}.log", environ, folder)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(child, url)
        yield url
    finally:
        child.stop()
