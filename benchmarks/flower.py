"""What Flower and the ledger remember after kill -9: ``python -m benchmarks.flower [--tasks N]``.

The same tasks on RabbitMQ, with events for Flower (in its persistent mode) and a monitor for the
ledger; both are killed at the end and started again. Needs ``pip install flower==2.2.0``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common import Figure, show
from benchmarks.publish import vhost
from cadasta.workertoolbox import Ledger
from tests.services import SERVICES, create_database, drop_database, free_port

TASKS = 50_000
APP = """
from celery import Celery
from cadasta.workertoolbox import Config

app = Celery("watched")
app.config_from_object(Config(["export"], worker_send_task_events=True,
                              task_send_sent_event=True, task_ignore_result=True))

@app.task(name="export.nothing")
def nothing(number):
    pass
"""
PUBLISH = "from watched import nothing\nfor n in range({}): nothing.delay(n)"


class Site:
    """A folder with an app, on a broker and a database of its own."""

    def __init__(self, folder: Path, broker: str, database: str) -> None:
        self.folder = folder
        self.environ = {
            **os.environ,
            "CELERY_BROKER_URL": broker,
            "CELERY_RESULT_BACKEND": f"toolbox+{database}",
            "FLOWER_UNAUTHENTICATED_API": "true",
            "PYTHONPATH": os.pathsep.join([str(folder), os.getcwd()]),
        }
        (folder / "watched.py").write_text(APP)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{words[-1]}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *words], cwd=self.folder, env=self.environ, stdout=log, stderr=log
            )

    def celery(self, *words: str) -> subprocess.Popen[bytes]:
        return self.start("-m", "celery", "-A", "watched", *words)


def wait_for(done: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; return whether it came."""
    give_up = time.monotonic() + seconds
    while not done():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.5)
    return True


def flower_knows(port: int) -> int:
    """Return how many tasks Flower shows, 0 while it does not answer."""
    url = f"http://127.0.0.1:{port}/api/tasks?limit=1000000"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return len(json.load(answer))
    except OSError:
        return 0


def megabytes(process: subprocess.Popen[bytes]) -> float:
    """Return the memory that a process holds, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def require() -> None:
    """End with the remedy where Flower is not installed."""
    if importlib.util.find_spec("flower") is None:
        raise SystemExit("Flower is missing: .venv/bin/pip install flower==2.2.0")


def figures(tasks: int = TASKS) -> list[Figure]:
    """Return what both remember, and their memory."""
    require()
    postgres = SERVICES["postgres"].url
    database = create_database(postgres)
    try:
        with tempfile.TemporaryDirectory() as folder, vhost() as broker:
            return compare(Site(Path(folder), broker, database), database, tasks)
    finally:
        drop_database(postgres, database)


def compare(site: Site, database: str, tasks: int) -> list[Figure]:
    """Run the tasks under both, kill both, start both again."""
    port = free_port()
    flower = ["flower", "--persistent=True", f"--db={site.folder}/flower.db"]
    flower += [f"--max-tasks={2 * tasks}", f"--port={port}", "--address=127.0.0.1"]
    started = [site.celery("monitor"), site.celery(*flower)]
    try:
        started.append(site.celery("worker", "-E", "-c", "2", "-l", "WARNING"))
        time.sleep(10)  # until all three listen
        site.start("-c", PUBLISH.format(tasks)).wait()
        with Ledger(database) as ledger:
            wait_for(lambda: ledger.summary().total >= tasks, 600)
            wait_for(lambda: flower_knows(port) >= tasks, 300)
            memory = [megabytes(process) for process in started[:2]]
            before = (ledger.summary().total, flower_knows(port))
            for process in started[:2]:
                process.kill()
                process.wait()
            started[:2] = [site.celery("monitor"), site.celery(*flower)]
            time.sleep(20)  # Flower reads its file at the start
            after = (ledger.summary().total, flower_knows(port))
    finally:
        for process in started:
            process.terminate()
            process.wait()
    return [
        _figure(f"tasks known of {tasks:,} that ran", "tasks", before),
        _figure("the same after kill -9 and a new start", "tasks", after),
        _figure("memory of the process that watches", "MiB", memory),
    ]


def _figure(what: str, unit: str, found: Sequence[float]) -> Figure:
    ours, theirs = found
    ratio = ours / theirs if theirs else float("inf")
    return Figure(what, unit, ours, theirs, "Flower 2.2, persistent", ratio, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=TASKS)
    show(figures(parser.parse_args().tasks))
