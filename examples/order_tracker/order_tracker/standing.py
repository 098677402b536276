"""``order-tracker status``: how the work stands, in the terminal."""

from __future__ import annotations

import json
import time
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .database import Database, utc_now
from .reading import Summary, summary
from .settings import Settings
from .statuses import STATUSES

#: Seconds between two looks.
INTERVAL = 0.25
COLOURS = dict(zip(STATUSES, ("white", "cyan", "yellow", "green", "red"), strict=True))


def show(settings: Settings, watch: bool, as_json: bool) -> None:
    """Print how the work stands.

    Args:
        settings: of the database.
        watch: go on until all units are done; only changes are printed where this is no terminal.
        as_json: print JSON, one object a line.

    Raises:
        NotInitialisedError: the database has no tables.
    """
    database = Database(settings.db_url)
    try:
        database.require_tables()
        console = Console(highlight=False)
        if as_json or not (watch and console.is_terminal):
            _print(database, console, watch, as_json)
        else:
            _watch(database, console)
    finally:
        database.close()


def _print(database: Database, console: Console, watch: bool, as_json: bool) -> None:
    shown: Summary | None = None
    while shown is None or watch and not is_complete(shown):
        found = read(database)
        if found != shown:
            shown = found
            if as_json:
                print(json.dumps(found.to_dict()), flush=True)
            elif watch:
                print(one_line(found), flush=True)
            else:
                console.print(picture(found))
        elif watch:
            time.sleep(INTERVAL)


def _watch(database: Database, console: Console) -> None:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            found = read(database)
            live.update(picture(found), refresh=True)
            if is_complete(found):
                return
            time.sleep(INTERVAL)


def read(database: Database) -> Summary:
    """How the work stands now."""
    with database.read() as connection:
        return summary(connection)


def is_complete(found: Summary) -> bool:
    """Whether there are units and all of them are done."""
    return 0 < found.total == found.done


def one_line(found: Summary) -> str:
    """All of it in words."""
    counts = ", ".join(f"{number} {status}" for status, number in found.counts.items())
    return (
        f"{found.done}/{found.total} done: {counts}; {found.in_flight} of {found.limit} in flight"
    )


def picture(found: Summary) -> RenderableType:
    """A progress bar and the counts."""
    bar = Table.grid(padding=(0, 1))
    share = found.done / found.total if found.total else 0.0
    bar.add_row(
        ProgressBar(total=max(found.total, 1), completed=found.done, width=40),
        f"{share:4.0%}",
        f"{found.done} of {found.total} units done",
    )
    counts = Text("  ").join(
        Text(f"{status} {found.counts[status]}", style=COLOURS[status]) for status in STATUSES
    )
    state = "feeding" if found.going else "stopped: GET /go/ starts the feeding"
    used = found.in_flight / found.limit
    if found.moved_at is not None:
        seconds = max(0, round((utc_now() - found.moved_at).total_seconds()))
        state += f"; the last unit moved {timedelta(seconds=seconds)} ago"
    rest = f"in flight {found.in_flight} of {found.limit} ({used:.0%}); {state}"
    if not found.total:
        rest = "There is no unit yet: order-tracker init --units 100"
    return Group(bar, counts, Text(rest))
