"""A deployment as a user runs it: workers, a monitor and producers, each a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery

from cadasta.workertoolbox import Config, Ledger, LedgerError
from cadasta.workertoolbox.ledger.model import Task
from tests.services import Process, wait_until

PROJECT = Path(__file__).parent / "project"
QUEUES = ["export", "data.sync"]


class Deployment:
    """One app on one broker and one database.

    Args:
        folder: where logs and notes go.
        settings: what the processes get as ``CELERY_`` + name.
        environ: further environment variables of the processes.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], environ: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = {}
        self.environ = {
            **(environ or {}),
            "NOTES": str(folder),
            "PYTHONPATH": str(PROJECT),
            "PYTHONUNBUFFERED": "1",
        }
        self.processes: dict[str, Process] = {}
        self._app: Celery | None = None
        self._ledger: Ledger | None = None
        self.change(queues=QUEUES, **settings)

    def change(self, **settings: Any) -> None:
        """Change settings; before the first process or use of the app."""
        self.settings.update(settings)
        for name, value in settings.items():
            text = value if isinstance(value, str) else json.dumps(value)
            self.environ[f"CELERY_{name.upper()}"] = text

    @property
    def app(self) -> Celery:
        """The same app in the test's own process."""
        if self._app is None:
            for name, value in self.environ.items():
                if name.startswith("AWS_"):
                    os.environ[name] = value
            self._app = Celery("proj", set_as_current=False)
            self._app.config_from_object(Config(**self.settings))
        return self._app

    @property
    def ledger(self) -> Ledger:
        if self._ledger is None:
            self._ledger = Ledger.from_app(self.app)
        return self._ledger

    def start(
        self, kind: str, name: str = "", *options: str, ready: str = r"ready\.|Recording "
    ) -> Process:
        """Start ``celery -A proj <kind>`` and wait until it is ready."""
        command = [sys.executable, "-m", "celery", "-A", "proj", kind]
        if kind == "worker":
            command += ["-n", f"{name}@test", "-l", "INFO"]
            command += [] if "-c" in options else ["-c", "2"]
        process = Process(
            [*command, *options],
            self.folder / f"{kind}{name}.log",
            name=f"{kind} {name}",
            env=self.environ,
            cwd=self.folder,
        )
        self.processes[f"{kind}{name}"] = process
        process.start()
        process.wait_for_log(ready)
        return process

    def produce(self, what: str, tasks: int, script: str = "produce.py") -> dict[str, Any]:
        """Run a producer to its end; what it printed."""
        done = subprocess.run(
            [sys.executable, str(PROJECT / script), what, str(tasks)],
            env={**os.environ, **self.environ},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        made: dict[str, Any] = json.loads(done.stdout)
        return made

    def notes(self, file: str) -> list[list[str]]:
        """The lines of one of the project's note files, in words."""
        path = self.folder / file
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def all_tasks(self) -> list[Task]:
        """Everything in the ledger."""
        found: list[Task] = []
        after = None
        while True:
            page = self.ledger.find(limit=1000, after=after)
            found += page.tasks
            after = page.next
            if after is None:
                return found

    def count(self) -> int:
        """How many tasks the ledger has; 0 while it cannot be reached."""
        try:
            return self.ledger.summary().total
        except LedgerError:
            return 0

    def wait_for_quiet(self, *last: str, timeout: float = 90) -> None:
        """Wait until every publication has run, is finished and is recorded.

        ``last`` are the ids of tasks that others publish at their end: there may be a moment in
        which everything is finished and they are still to come.
        """

        def is_quiet() -> bool:
            published = self.notes("published")
            if len(self.notes("ran")) < len(published):
                return False
            tasks = {task.task_id: task for task in self.all_tasks()}
            if not tasks.keys() >= set(last):
                return False
            return all(
                task_id in tasks and tasks[task_id].retries >= int(retries)
                for task_id, _, retries in published
            ) and all(
                task.is_final or task.name == "celery.chord_unlock" for task in tasks.values()
            )

        self.wait_until(is_quiet, "all tasks to be run and recorded", timeout)

    def wait_until(self, is_so: Callable[[], Any], what: str, timeout: float = 60) -> None:
        """Wait for a condition; on failure the logs of all processes are shown."""
        try:
            wait_until(is_so, timeout, what, interval=0.1)
        except AssertionError as error:
            logs = "\n".join(f"--- {p.name}\n{p.log_tail(30)}" for p in self.processes.values())
            raise AssertionError(f"{error}\n{logs}") from error

    def stop_all(self) -> None:
        """Stop each process in an orderly way; each has to end with 0."""
        for process in self.processes.values():
            if process.running:
                assert process.stop(timeout=30) == 0, process.log_tail()

    def close(self) -> None:
        """Free everything, whatever has happened."""
        for process in self.processes.values():
            process.stop(timeout=5)
        if self._ledger is not None:
            self._ledger.close()
        if self._app is not None:
            self._app.close()
