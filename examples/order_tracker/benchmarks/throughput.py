"""Units a second from end to end on RabbitMQ and PostgreSQL, and the API's memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from order_tracker.database import Database, utc_now
from order_tracker.feeding import Feeding
from order_tracker.fleet import Fleet
from order_tracker.initialise import initialise
from order_tracker.messages import make_app, send_feeding
from order_tracker.scratch import scratch_database, scratch_vhost
from order_tracker.settings import Settings
from order_tracker.standing import read
from sqlalchemy import text

AGENTS = 4
APIS = 2
PORT = 18_080
#: Tasks of a unit: outbox, agent, three reports.
TASKS = 5


@dataclass(frozen=True)
class Run:
    """What one run gave: units a second, and the most memory of an API process in MiB."""

    rate: float
    memory: float = 0.0


@contextmanager
def deployment() -> Iterator[tuple[Settings, Fleet]]:
    """Servers of its own, a leader and the agents."""
    with (
        scratch_vhost() as broker,
        scratch_database() as database,
        tempfile.TemporaryDirectory() as folder,
    ):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RTB_", "CELERY_"))}
        environ = {
            **clean,
            "RTB_BROKER_URL": broker,
            "RTB_DB_URL": database,
            "RTB_WORK_SECONDS": "0",
            "RTB_API_HOST": f"127.0.0.1:{PORT}",
        }
        settings = Settings.from_environ(environ)
        with Fleet(Path(folder), environ) as fleet:
            fleet.start("leader", "leader")
            for number in range(AGENTS):
                fleet.start(f"agent{number}", "agent")
            yield settings, fleet


def tracked(units: int) -> Run:
    """The order tracker, with somebody who listens to the events."""
    with deployment() as (settings, fleet):
        initialise(settings, units)
        fleet.start("inbox", "inbox")
        for number in range(APIS):
            fleet.start(f"api{number}", "api", "--bind", f"127.0.0.1:{PORT + number}")
        _wait_for_workers(fleet, ["leader", "inbox", *(f"agent{n}" for n in range(AGENTS))])
        url = f"http://127.0.0.1:{PORT}"
        threading.Thread(target=_listen, args=(url,), daemon=True).start()
        database = Database(settings.db_url)
        try:
            start = time.perf_counter()
            with urllib.request.urlopen(f"{url}/go/", timeout=60):  # noqa: S310 - http
                pass
            _wait(fleet, lambda: read(database).done >= units)
            seconds = time.perf_counter() - start
        finally:
            database.close()
        memory = max(_peak(fleet.pid(f"api{number}")) for number in range(APIS))
        return Run(units / seconds, memory)


def untracked(units: int) -> Run:
    """The same tasks through the same queues, without the orders' tables and without a limit."""
    with deployment() as (settings, fleet):
        log = open(fleet.folder / "untracked.log", "wb")
        command = [sys.executable, "-m", "benchmarks.untracked_inbox"]
        inbox = subprocess.Popen(command, env=fleet.environ, stdout=log, stderr=log)  # noqa: S603
        app = make_app(settings)
        database = Database(settings.db_url)
        done = text("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")

        def is_done() -> bool:
            with database.read() as connection:
                return int(connection.execute(done).scalar_one()) >= units * TASKS

        try:
            _wait_for_workers(fleet, ["leader", "untracked", *(f"agent{n}" for n in range(AGENTS))])
            start = time.perf_counter()
            expires = utc_now() + timedelta(hours=1)
            for number in range(units):
                send_feeding(app, settings.box, Feeding(_id(number), number, 1, 0, {}, expires))
            _wait(fleet, is_done)
            return Run(units / (time.perf_counter() - start))
        finally:
            inbox.terminate()
            inbox.wait(30)
            database.close()
            app.close()
            log.close()


def _id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def _wait_for_workers(fleet: Fleet, names: list[str]) -> None:
    _wait(fleet, lambda: all("ready." in fleet.log(name, 100_000) for name in names))
    time.sleep(1)


def _wait(fleet: Fleet, is_so: Callable[[], bool], patience: float = 1800) -> None:
    deadline = time.monotonic() + patience
    while not is_so():
        fleet.check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done after {patience} seconds")
        time.sleep(0.25)


def _listen(url: str) -> None:
    try:
        with urllib.request.urlopen(f"{url}/events", timeout=60) as answer:  # noqa: S310 - http
            for _ in answer:
                pass
    except OSError:
        pass


def _peak(pid: int) -> float:
    """The most memory that a process has had, MiB (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0
