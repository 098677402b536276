"""``order-tracker demo``: all processes, and a backlog to its end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.live import Live

from cadasta.workertoolbox import Ledger, LedgerError

from .database import Database
from .fleet import Fleet, FleetError
from .initialise import initialise
from .messages import make_app
from .reading import Summary
from .settings import Settings
from .standing import is_complete, picture, read

#: Seconds that the processes get to start, and to end.
PATIENCE = 60
#: Tasks that a unit takes at least: outbox, agent and three reports.
TASKS_A_UNIT = 5
_SERVERS = ("RTB_DB_URL", "RTB_DB_HOST", "RTB_BROKER_URL", "RTB_BROKER_HOST")

console = Console(highlight=False)


def run_demo(units: int, apis: int, agents: int, keep: bool, timeout: float) -> int:
    """Run it; 0 if every unit came to its end and the limit held.

    Args:
        units: how many to add.
        apis: API processes.
        agents: agent processes.
        keep: afterwards, keep the folder and go on serving until Ctrl-C.
        timeout: seconds until it has failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="order-tracker-"))
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if not any(environ.get(name) for name in _SERVERS):
        environ["RTB_DB_URL"] = f"sqlite:///{folder}/orders.sqlite3"
    settings = Settings.from_environ(environ)
    fleet = Fleet(folder, environ)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else the processes would stay
    good = False
    try:
        good = _demonstrate(settings, fleet, units, apis, agents, timeout)
        if good and keep:
            console.print("The board stays until Ctrl-C.")
            while True:
                fleet.check()
                time.sleep(1)
    except FleetError as error:
        console.print(str(error), style="red", markup=False)
        good = False
    except KeyboardInterrupt:
        pass  # Before the end, it has failed.
    finally:
        fleet.stop()
    if good and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        console.print(f"Logs and files: {folder}", soft_wrap=True)
    return 0 if good else 1


def _demonstrate(
    settings: Settings, fleet: Fleet, units: int, apis: int, agents: int, timeout: float
) -> bool:
    initialise(settings, units, add=True)
    ports = _ports(settings, apis)
    for number, port in enumerate(ports, 1):
        fleet.start(f"api{number}", "api", "--bind", f"{settings.api_host}:{port}")
    for kind in ("monitor", "leader", "inbox"):
        fleet.start(kind, kind)
    for number in range(1, agents + 1):
        fleet.start(f"agent{number}", "agent")
    console.print(f"{apis} api, 1 leader, {agents} agents, 1 inbox and 1 monitor are starting.")
    place = f"http://{settings.api_host}:{ports[0]}"
    _go(fleet, place)
    console.print(
        f"GET {place}/go/ has started the feeding. The board: {place}/board",
        soft_wrap=True,
    )
    database = Database(settings.db_url)
    try:
        most, last = _follow(database, fleet, timeout)
    finally:
        database.close()
    console.print(f"At most {most} units were in flight; the limit is {last.limit}.")
    console.print(_ledger_line(settings, units * TASKS_A_UNIT))
    return most <= last.limit


def _ports(settings: Settings, number: int) -> list[int]:
    """The API's own port first, then free ones."""
    found: list[int] = []
    candidates = [settings.api_port, *[0] * number]
    probes = []
    for candidate in candidates:
        probe = socket.socket()
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.api_host, candidate))
        except OSError:
            probe.close()
            continue
        probes.append(probe)
        found.append(int(probe.getsockname()[1]))
    for probe in probes:
        probe.close()
    return found[:number]


def _go(fleet: Fleet, place: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        fleet.check()
        try:
            with urllib.request.urlopen(f"{place}/go/", timeout=PATIENCE):  # noqa: S310 - http
                return
        except urllib.error.HTTPError as error:
            raise FleetError(f"GET /go/ answers {error.code}: {error.read().decode()}") from error
        except OSError:
            if time.monotonic() > deadline:
                raise FleetError(f"no API answers at {place}") from None
            time.sleep(0.1)


def _follow(database: Database, fleet: Fleet, timeout: float) -> tuple[int, Summary]:
    deadline = time.monotonic() + timeout
    most = 0
    with Live(console=console, auto_refresh=False) as live:
        while True:
            found = read(database)
            most = max(most, found.in_flight)
            live.update(picture(found), refresh=console.is_terminal)
            if is_complete(found):
                break
            fleet.check()
            if time.monotonic() > deadline:
                raise FleetError(f"not done after {timeout:g} seconds")
            time.sleep(0.1)
    if not console.is_terminal:
        console.print()  # Live leaves its last line open there.
    return most, found


def _ledger_line(settings: Settings, wanted: int) -> str:
    deadline = time.monotonic() + 15
    total = 0
    with Ledger.from_app(make_app(settings)) as ledger:
        while total < wanted and time.monotonic() < deadline:
            try:
                total = ledger.summary().total
            except LedgerError:
                total = 0
            time.sleep(0.2)
    return f"The toolbox's ledger has {total} tasks: {TASKS_A_UNIT} and more a unit."
