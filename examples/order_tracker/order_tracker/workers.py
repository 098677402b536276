"""The workers' processes; each function ends its process when the worker ends."""

from __future__ import annotations

import sys

from celery import Celery

from .agent import add_agent_task
from .database import Database
from .identity import process_name
from .inbox import add_inbox_task
from .leader import add_leader_task
from .messages import AGENT_QUEUE, INBOX_QUEUE, make_app
from .settings import Settings

#: A worker of this application needs no word from its fellows.
_QUIET = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}


def run_leader(settings: Settings) -> None:
    """Work as the leader until SIGTERM."""
    app = make_app(settings)
    add_leader_task(app)
    _run_worker(app, "leader", settings.box, 1)


def run_agent(settings: Settings, concurrency: int) -> None:
    """Work as an agent until SIGTERM, on so many units at a time."""
    app = make_app(settings)
    add_agent_task(app, settings)
    _run_worker(app, "agent", AGENT_QUEUE, concurrency)


def run_inbox(settings: Settings, concurrency: int) -> None:
    """Apply reports until SIGTERM, so many at a time.

    Raises:
        NotInitialisedError: the database has no tables.
    """
    database = Database(settings.db_url)
    try:
        database.require_tables()
    finally:
        database.close()
    app = make_app(settings)
    add_inbox_task(app, settings, process_name("inbox"))
    _run_worker(app, "inbox", INBOX_QUEUE, concurrency)


def run_monitor(settings: Settings) -> None:
    """Fill the toolbox's ledger until SIGTERM."""
    make_app(settings).start(["monitor"])


def _run_worker(app: Celery, kind: str, queue: str, concurrency: int) -> None:
    # A pool of processes also where one would do: Celery's result backend opens a new connection
    # for each result in a process that was not forked.
    worker = app.Worker(
        hostname=process_name(kind),
        queues=[queue],
        concurrency=concurrency,
        loglevel="INFO",
        **_QUIET,
    )
    worker.start()
    # Of a worker that had to give up; worker_main() would lose it, and no supervisor start another.
    sys.exit(worker.exitcode)
