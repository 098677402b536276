"""The long-running processes, each as one function that returns when it is told to end."""

from __future__ import annotations

import logging
import signal
from typing import Any, NoReturn

from celery import Celery
from waitress.server import create_server

from .agent import add_agent_task
from .api import make_api
from .database import Database, change_bounds
from .events import Events
from .feeder import Feeder, Sweeper
from .identity import process_name
from .inbox import add_inbox_task
from .leader import add_leader_task
from .messages import AGENT_QUEUE, INBOX_QUEUE, make_app
from .settings import Settings

#: Threads of the API's server, and how many of them streams may hold.
THREADS = 48
STREAMS = 40

#: A worker of this application needs no word from its fellows.
_QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


def run_api(settings: Settings) -> None:
    """Serve the API until SIGTERM or SIGINT.

    Raises:
        NotInitialisedError: the database has no tables.
        OSError: the address cannot be listened on.
    """
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    database = Database(settings.db_url)
    database.require_tables()
    with database.write() as connection:
        change_bounds(connection, settings.max_queue, settings.stall_timeout)
    feeder = Feeder(make_app(settings), database, settings.box, process_name("api"))
    events = Events(database, STREAMS)
    sweeper = Sweeper(feeder)
    server = create_server(
        make_api(database, feeder, events),
        host=settings.api_host,
        port=settings.api_port,
        threads=THREADS,
        send_bytes=1,  # Events are to leave at once.
        ident=None,
    )

    def end(*_: Any) -> NoReturn:
        events.close()  # else the server would wait for the streams
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    sweeper.start()
    port = getattr(server, "effective_port", settings.api_port)  # Of two sockets, it has none.
    print(f"Listening on http://{settings.api_host}:{port}/board", flush=True)
    try:
        server.run()
    finally:
        server.close()
        sweeper.stop()
        database.close()


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


def run_inbox(settings: Settings) -> None:
    """Apply reports until SIGTERM.

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
    _run_worker(app, "inbox", INBOX_QUEUE, 1)


def run_monitor(settings: Settings) -> None:
    """Fill the toolbox's ledger until SIGTERM."""
    make_app(settings).start(["monitor"])


def _run_worker(app: Celery, kind: str, queue: str, concurrency: int) -> None:
    # A pool of processes also where one would do: Celery's result backend opens a new connection
    # for each result in a process that was not forked.
    where = ["-Q", queue, "-n", process_name(kind), "--concurrency", str(concurrency)]
    app.worker_main(["worker", *where, "-l", "INFO", *_QUIET])
