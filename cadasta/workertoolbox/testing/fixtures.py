"""pytest fixtures for applications: an embedded broker and ledger, workers, a monitor.

In a ``conftest.py``: ``pytest_plugins = ["cadasta.workertoolbox.testing_fixtures"]``. A test::

    def test_an_export(embedded_app, start_worker, start_monitor):
        app = embedded_app(queues=["export"])
        start_worker("exporter")          # as in: celery -A exporter worker
        start_monitor("exporter")
        sent = app.send_task("export.pdf", (7,))
        with Ledger.from_app(app) as ledger:
            assert wait_for(ledger, sent.id).result == "7.pdf"
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from ..conf.config import Config

#: Seconds for a process to be ready, and to end.
START, STOP = 60.0, 30.0


class CeleryProcess:
    """``celery -A <app> <command>`` as a process of its own.

    Args:
        command: the command and its options.
        log: the file that gets all its output.
        environ: its environment.
    """

    def __init__(self, command: list[str], log: Path, environ: Mapping[str, str]) -> None:
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=dict(environ)
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def log_text(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text(errors="replace")

    def wait_for_log(self, pattern: str, timeout: float = START) -> re.Match[str]:
        """Return the first match of a regular expression in its output.

        Raises AssertionError after ``timeout`` seconds, or where it ends before; with its output.
        """
        give_up = time.monotonic() + timeout
        while True:
            has_ended = self._process.poll() is not None
            found = re.search(pattern, self.log_text())
            if found:
                return found
            if has_ended or time.monotonic() > give_up:
                what = "it ended" if has_ended else f"waited {timeout:g} s"
                raise AssertionError(f"{what}, no {pattern!r} in its output:\n{self.log_text()}")
            time.sleep(0.05)

    def stop(self, timeout: float = STOP) -> int:
        """End it in an orderly way; return its exit code. It is killed after so many seconds."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it by SIGKILL, as a crash would; return its exit code."""
        self._process.kill()
        return self._process.wait()


StartProcess = Callable[..., CeleryProcess]


@pytest.fixture
def embedded_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Environment variables that give any app of the toolbox a broker and a ledger of its own."""
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.delenv(name, raising=False)  # Celery lets them win over the app's settings
    folder = tmp_path / "workertoolbox"
    settings = Config.local(["celery"], folder)
    return {
        "CELERY_BROKER_URL": str(settings["broker_url"]),
        "CELERY_RESULT_BACKEND": str(settings["result_backend"]),
    }


@pytest.fixture
def embedded_app(
    tmp_path: Path,
    embedded_environment: dict[str, str],  # noqa: ARG001  # it removes foreign variables
) -> Iterator[Callable[..., Any]]:
    """A function that makes an app on that broker and ledger; its arguments are ``Config``'s."""
    made = []

    def make(queues: list[str], **settings: Any) -> Any:
        app = Celery("embedded", set_as_current=False)
        app.config_from_object(Config.local(queues, tmp_path / "workertoolbox", **settings))
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


@pytest.fixture
def start_celery(tmp_path: Path, embedded_environment: dict[str, str]) -> Iterator[StartProcess]:
    """A function that starts ``celery -A <app> <command>`` there; it is stopped after the test.

    Arguments: the app as for ``celery -A``, the command, its options; ``ready``, what its output
    shows when it is ready (default: it does not wait); ``environ``, further variables.
    """
    started: list[CeleryProcess] = []

    def start(
        app: str,
        command: str,
        *options: str,
        ready: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> CeleryProcess:
        log = tmp_path / f"{command}-{len(started)}.log"
        path = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
        variables = {**os.environ, "PYTHONPATH": path, **embedded_environment, **(environ or {})}
        line = [sys.executable, "-m", "celery", "-A", app, command, *options]
        process = CeleryProcess(line, log, variables)
        started.append(process)
        if ready:
            process.wait_for_log(ready)
        return process

    yield start
    for process in started:
        process.stop()


@pytest.fixture
def start_worker(start_celery: StartProcess) -> StartProcess:
    """A function that starts a worker of an app, given as for ``celery -A``, with options."""

    def start(app: str, *options: str, environ: Mapping[str, str] | None = None) -> CeleryProcess:
        chosen = ("-l", "INFO", "-c", "2", *options)
        return start_celery(app, "worker", *chosen, ready=r" ready\.", environ=environ)

    return start


@pytest.fixture
def start_monitor(start_celery: StartProcess) -> StartProcess:
    """A function that starts a monitor of an app, given as for ``celery -A``, with options."""

    def start(app: str, *options: str, environ: Mapping[str, str] | None = None) -> CeleryProcess:
        return start_celery(app, "monitor", *options, ready="Recording ", environ=environ)

    return start
