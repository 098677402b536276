"""The API's process."""

from __future__ import annotations

import logging
import signal
from typing import Any, NoReturn

from waitress.server import create_server

from .agents import Agents
from .api import make_api
from .database import Database, change_bounds
from .events import Events
from .feeder import Feeder, Sweeper
from .identity import process_name
from .messages import make_app
from .settings import Settings

#: Threads of the API's server, and how many of them streams may hold.
THREADS = 48
STREAMS = 40


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
    app = make_app(settings)
    feeder = Feeder(app, database, settings.box, process_name("api"))
    agents = Agents(app)
    events = Events(database, STREAMS, agents.count)
    sweeper = Sweeper(feeder)
    try:
        server = create_server(
            make_api(database, feeder, events),
            host=settings.api_host,
            port=settings.api_port,
            threads=THREADS,
            send_bytes=1,  # Events are to leave at once.
            ident=None,
        )
    except ValueError as error:  # waitress has it for a name that cannot be looked up
        raise OSError("the host is unknown") from error

    def end(*_: Any) -> NoReturn:
        events.close()  # else the server would wait for the streams
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    sweeper.start()
    agents.start()
    port = getattr(server, "effective_port", settings.api_port)  # Of two sockets, it has none.
    print(f"Listening on http://{settings.api_host}:{port}/board", flush=True)
    try:
        server.run()
    finally:
        server.close()
        sweeper.stop()
        agents.close()
        database.close()
