"""The command ``order-tracker``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from cadasta.workertoolbox import ToolboxError

from .errors import OrderTrackerError
from .settings import Settings


class Commands(click.Group):
    """Tells an error of this application in one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (OrderTrackerError, ToolboxError) as error:
            raise click.ClickException(str(error)) from error
        except PermissionError as error:
            raise click.ClickException(f"{error.strerror}: {error.filename}") from error
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", error)).strip().partition("\n")[0]
            raise click.ClickException(
                f"the database cannot be used: {reason}. See RTB_DB_URL and RTB_DB_HOST."
            ) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Feed work units to a broker, a bounded number at a time, and track each until it is done.

    Settings come from the RTB_ variables; with none of them set, all is kept in .order-tracker.
    """


def database_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--db``, which wins over ``RTB_DB_URL``."""
    return click.option("--db", metavar="URL", help="The database, instead of RTB_DB_URL.")(command)


def settings_of(db: str | None = None, **variables: str | None) -> Settings:
    """The settings, where options win over variables."""
    given = {"RTB_DB_URL": db, **variables}
    return Settings.from_environ(
        {**os.environ, **{name: value for name, value in given.items() if value is not None}}
    )


@main.command()
@click.option("--units", type=click.IntRange(0, 10_000_000), default=100, show_default=True)
@click.option("--add", is_flag=True, help="Add the units even where there are some.")
@database_option
def init(units: int, add: bool, db: str | None) -> None:
    """Make the tables, and a backlog where there is none."""
    from .initialise import initialise

    made, there = initialise(settings_of(db), units, add)
    if there and not made and units:
        click.echo(f"{there} units are there already: nothing added (--add adds {units} more).")
    else:
        click.echo(f"{made} units added; {there + made} in all.")


@main.command()
@click.option("--bind", metavar="HOST:PORT", help="Instead of RTB_API_HOST (127.0.0.1:8080).")
@database_option
def api(bind: str | None, db: str | None) -> None:
    """Serve the HTTP API and the board."""
    from .server import run_api

    settings = settings_of(db, RTB_API_HOST=bind)
    try:
        run_api(settings)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {settings.api_host}:{settings.api_port}: {error.strerror or error}."
            " Name another place by --bind or RTB_API_HOST."
        ) from error


@main.command()
@database_option
def leader(db: str | None) -> None:
    """Prepare units for the agents."""
    from .workers import run_leader

    run_leader(settings_of(db))


@main.command()
@click.option("--concurrency", "-c", type=click.IntRange(1, 1000), default=1, show_default=True)
@database_option
def agent(concurrency: int, db: str | None) -> None:
    """Work on units, so many at a time; run as many agents as you like."""
    from .workers import run_agent

    run_agent(settings_of(db), concurrency)


@main.command()
@click.option("--concurrency", "-c", type=click.IntRange(1, 64), default=2, show_default=True)
@database_option
def inbox(concurrency: int, db: str | None) -> None:
    """Apply what leaders and agents report, so many at a time, and feed the next units."""
    from .workers import run_inbox

    run_inbox(settings_of(db), concurrency)


@main.command()
@database_option
def monitor(db: str | None) -> None:
    """Record every task in the toolbox's ledger."""
    from .workers import run_monitor

    run_monitor(settings_of(db))


@main.command()
@click.option("--watch", is_flag=True, help="Follow it in a live progress bar until all is done.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@database_option
def status(watch: bool, as_json: bool, db: str | None) -> None:
    """Show how the work stands."""
    from .standing import show

    show(settings_of(db), watch, as_json)


@main.command()
@click.option("--units", type=click.IntRange(1, 10_000_000), default=100, show_default=True)
@click.option("--apis", type=click.IntRange(1, 16), default=1, show_default=True)
@click.option("--agents", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--keep", is_flag=True, help="Keep the folder, and serve the board until Ctrl-C.")
@click.option("--timeout", type=float, default=300, show_default=True, help="Seconds to the end.")
def demo(units: int, apis: int, agents: int, keep: bool, timeout: float) -> None:
    """Run all of it: a backlog to the end, and exit 0.

    Everything is embedded, in a folder of its own, unless RTB_ variables name servers.
    """
    from .demo import run_demo

    sys.exit(run_demo(units, apis, agents, keep, timeout))
