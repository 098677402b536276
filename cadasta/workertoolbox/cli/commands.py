"""The Celery sub-commands: ``monitor``, ``tasks``, ``task`` and ``ledger``. No logic of their own.

Celery loads this module at every start, even for ``--help``, so that everything heavy is imported
inside the functions.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import click
from celery.bin.base import LOG_LEVEL, CeleryCommand, handle_preload_options

from ..plain.json_text import read_value
from ..plain.moments import read_duration, read_moment

# The parameter types name no type arguments: not every click that setup.py allows has them.


class Duration(click.ParamType):  # type: ignore[type-arg]
    """``90s``, ``15m``, ``2h``, ``7d`` or ``4w`` as a timedelta."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            return read_duration(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Moment(click.ParamType):  # type: ignore[type-arg]
    """An ISO 8601 time (UTC where it names no zone), or a duration before now."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return read_moment(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Header(click.ParamType):  # type: ignore[type-arg]
    """``name=value``, the value as JSON where it is JSON."""

    name = "name=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{value!r}: write name=value, such as creator_id=5.", param, ctx)
        return name, read_value(text)


def _json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")(
        function
    )


@contextmanager
def _ledger(ctx: click.Context, *, upgrade: bool = False) -> Iterator[Any]:
    """The app's ledger; its errors become one line and exit code 2.

    Commands that read change no tables: not by surprise, nor before the monitors and workers of
    the older version have stopped.
    """
    from ..errors import ToolboxError
    from ..ledger.ledger import Ledger

    try:
        with Ledger.from_app(ctx.obj.app, upgrade=upgrade) as ledger:
            yield ledger
    except ToolboxError as exc:
        raise _usage(exc) from exc


def _usage(exc: Exception) -> click.ClickException:
    return _Refused(str(exc))


class _Refused(click.ClickException):
    exit_code = 2


@click.command("monitor", cls=CeleryCommand)
@click.option("--batch", type=click.IntRange(1, 10_000), help="Messages of one transaction [500].")
@click.option(
    "--interval", type=click.FloatRange(0.01, 60), help="Seconds before a smaller batch [0.5]."
)
@click.option("-l", "--loglevel", default="INFO", type=LOG_LEVEL, help="Level of the log [INFO].")
@click.option("-f", "--logfile", help="Where the log goes; default: standard error.")
@click.option("--pidfile", help="File that holds the process id while it runs.")
@click.pass_context
@handle_preload_options
def monitor(
    ctx: click.Context,
    batch: int | None,
    interval: float | None,
    loglevel: Any,
    logfile: str | None,
    pidfile: str | None,
) -> None:
    """Record every scheduled task in the ledger.

    Consumes the monitor queue until SIGTERM or SIGINT; then it writes what it holds and exits
    with 0. Run one, or several for more speed or safety: each task is recorded once.
    """
    from celery.platforms import LockFailed, create_pidlock

    from ..errors import BrokerError, ToolboxError
    from ..monitor.monitor import Monitor
    from ..worker.setup import set_up_logging

    app = ctx.obj.app
    try:
        app.log.setup(loglevel, logfile, redirect_stdouts=False, colorize=None)
        lock = create_pidlock(pidfile) if pidfile else None
    except (OSError, LockFailed) as exc:
        raise _usage(exc) from exc
    try:
        process = Monitor(app, batch=batch, interval=interval)
        set_up_logging(app)
    except ToolboxError as exc:
        raise _usage(exc) from exc
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.stop())
    try:
        process.run()
    except BrokerError as exc:
        raise click.ClickException(str(exc)) from exc
    finally:
        process.ledger.close()
        if lock is not None:
            lock.release()


@click.command("tasks", cls=CeleryCommand)
@click.option("--state", multiple=True, help="PENDING, STARTED, SUCCESS, FAILURE ...; repeatable.")
@click.option("--name", help="The task's name; * for any characters.")
@click.option("--queue", help="The queue that it was published to.")
@click.option("--root", "root_id", help="The id of the workflow's first task.")
@click.option(
    "--since", type=Moment(), help="Published after this time (UTC), or within 15m, 2h, 7d."
)
@click.option(
    "--until", type=Moment(), help="Published before this time (UTC), or 15m, 2h, 7d ago."
)
@click.option("--header", type=Header(), multiple=True, help="A custom header; repeatable.")
@click.option("--limit", default=50, type=click.IntRange(1, 10_000), help="Rows of a page [50].")
@click.option("--after", help="The cursor that the page before has printed.")
@click.option("--watch", is_flag=True, help="Show the newest tasks until interrupted.")
@_json_option
@click.pass_context
@handle_preload_options
def tasks(
    ctx: click.Context,
    watch: bool,
    as_json: bool,
    state: tuple[str, ...],
    name: str | None,
    queue: str | None,
    root_id: str | None,
    since: datetime | None,
    until: datetime | None,
    header: tuple[tuple[str, Any], ...],
    limit: int,
    after: str | None,
) -> None:
    """List scheduled tasks, newest first. Exit code 1 where none is found."""
    from celery.states import ALL_STATES, IGNORED

    from ..ledger.query import Query
    from . import output

    # A state of an application's own is taken as it is written.
    known = {*ALL_STATES, IGNORED}
    with _ledger(ctx) as ledger:
        query = Query(
            states=[text.upper() if text.upper() in known else text for text in state],
            names=name,
            queues=queue,
            root_id=root_id,
            since=since,
            until=until,
            headers=dict(header),
        )
        if watch:
            output.watch_tasks(
                lambda: ledger.find(query, limit=limit, after=after), as_json=as_json
            )
            return
        page = ledger.find(query, limit=limit, after=after)
        output.print_tasks(page, as_json=as_json)
    if not page.tasks:
        ctx.exit(1)


@click.command("check", cls=CeleryCommand)
@click.option(
    "--timeout",
    type=click.FloatRange(1, 600),
    default=10.0,
    help="Seconds to wait for the monitor [10].",
)
@_json_option
@click.pass_context
@handle_preload_options
def check(ctx: click.Context, timeout: float, as_json: bool) -> None:
    """Tell what is wrong with the deployment. Exit code 1 where something has to be mended."""
    from ..checks.run import run_checks
    from ..errors import ToolboxError
    from . import output

    try:
        if output.print_findings(run_checks(ctx.obj.app, timeout), as_json=as_json):
            ctx.exit(1)
    except ToolboxError as exc:
        raise _usage(exc) from exc


@click.command("task", cls=CeleryCommand)
@click.argument("task_id", metavar="ID")
@_json_option
@click.pass_context
@handle_preload_options
def task(ctx: click.Context, task_id: str, as_json: bool) -> None:
    """Show one task and its workflow's tree. Exit code 1 where the ledger does not know it."""
    from . import output

    with _ledger(ctx) as ledger:
        shown = ledger.get(task_id)
        if shown is None:
            raise click.ClickException(f"The ledger has no task {task_id!r}.")
        attempts = ledger.attempts(task_id)
        output.print_task(shown, attempts, ledger.workflow(task_id), as_json=as_json)


@click.group("ledger")
def ledger() -> None:
    """Keep the ledger: its tables, what is in it, what is old."""


@ledger.command("upgrade", cls=CeleryCommand)
@click.pass_context
@handle_preload_options
def upgrade(ctx: click.Context) -> None:
    """Create the tables, or bring them up to date. Safe to repeat, also at the same time."""
    from . import output

    with _ledger(ctx, upgrade=True) as book, output.progress("Upgrading"):
        applied = book.upgrade()
    for step in applied:
        click.echo(f"applied {step}")
    click.echo("The ledger's tables are up to date.")


@ledger.command("summary", cls=CeleryCommand)
@click.option(
    "--since", type=Moment(), help="Published after this time (UTC), or within 15m, 2h, 7d."
)
@_json_option
@click.pass_context
@handle_preload_options
def summary(ctx: click.Context, since: Any, as_json: bool) -> None:
    """Count tasks by name and state, with their waiting and running times."""
    from . import output

    with _ledger(ctx) as book:
        output.print_summary(book.summary(since=since), as_json=as_json)


@ledger.command("unfinished", cls=CeleryCommand)
@click.option("--older-than", type=Duration(), default="1h", help="Scheduled that long ago [1h].")
@click.option("--limit", default=50, type=click.IntRange(1, 10_000), help="Rows at most [50].")
@_json_option
@click.pass_context
@handle_preload_options
def unfinished(ctx: click.Context, older_than: Any, limit: int, as_json: bool) -> None:
    """List tasks without a final result: lost, stuck or waiting. Exit code 1 for any."""
    from . import output

    with _ledger(ctx) as book:
        page = book.unfinished(older_than=older_than, limit=limit)
        output.print_tasks(page, as_json=as_json)
    if page.tasks:
        ctx.exit(1)


@ledger.command("prune", cls=CeleryCommand)
@click.option("--older-than", type=Duration(), required=True, help="Age of what goes: 30d, 12w.")
@click.option("--keep-failures", is_flag=True, help="Keep failed tasks.")
@click.option("--include-unfinished", is_flag=True, help="Delete unfinished tasks as well.")
@click.option(
    "--batch", default=1000, type=click.IntRange(1, 10_000), help="Rows at a time [1000]."
)
@_json_option
@click.pass_context
@handle_preload_options
def prune(ctx: click.Context, as_json: bool, **options: Any) -> None:
    """Delete old tasks with their results, in small transactions."""
    from . import output

    with _ledger(ctx, upgrade=True) as book, output.progress("Pruning") as show:
        deleted = book.prune(**options, on_progress=show)
    click.echo(json.dumps({"deleted": deleted}) if as_json else f"{deleted} tasks deleted.")
