"""The processes of one deployment as children of this one: for the demo, tests and benchmarks."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

#: Seconds that all processes together get to end.
PATIENCE = 30.0


class FleetError(Exception):
    """A process has ended by itself; shows the end of its log."""


class Fleet:
    """Children that run ``order-tracker ...``, each with a log in ``folder``.

    Args:
        folder: where the logs go.
        environ: all environment variables of the children.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.environ = {**environ, "PYTHONUNBUFFERED": "1"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, name: str, *arguments: str) -> int:
        """Start ``order-tracker <arguments>`` under a name; returns the process id."""
        command = [sys.executable, "-m", "order_tracker", *arguments]
        with open(self.folder / f"{name}.log", "ab") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603 - our own program
                command, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self._running[name].pid

    def kill(self, name: str) -> None:
        """SIGKILL; returns when it is dead."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def pid(self, name: str) -> int:
        """The process id."""
        return self._running[name].pid

    def log(self, name: str, characters: int = 3000) -> str:
        """The end of a log."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-characters:] if path.exists() else ""

    def check(self) -> None:
        """Raise FleetError where a process has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise FleetError(f"{name} has ended with {process.returncode}:\n{self.log(name)}")

    def stop(self) -> dict[str, int]:
        """End all by SIGTERM, and by SIGKILL what does not heed it; returns the exit codes."""
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + PATIENCE
        codes = {}
        for name, process in self._running.items():
            try:
                codes[name] = process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        self._running.clear()
        return codes
