"""The command ``rate-limited-queue``."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import click

from . import embedded
from .blocking import BlockingStore
from .errors import RateLimitedQueueError
from .fields import identifier
from .settings import Settings, load

_config_option = click.option(
    "-c",
    "--config",
    type=click.Path(dir_okay=False),
    help="Configuration file; default what RLQ_CONFIG names, else the embedded store.",
)


class _Group(click.Group):
    """Shows the errors of this package without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RateLimitedQueueError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Group)
@click.version_option(package_name="rate-limited-queue")
def main() -> None:
    """Queues that release at most one job an interval for each queue id."""


def _with(settings: Settings, **changes: Any) -> Settings:
    return dataclasses.replace(settings, **{k: v for k, v in changes.items() if v is not None})


@main.command()
@_config_option
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.")
@click.option("--workers", type=click.IntRange(1), help="Server processes.")
def serve(config: str | None, host: str | None, port: int | None, workers: int | None) -> None:
    """Serve the HTTP API."""
    from .server import serve as run  # uvicorn: the other commands do not need it

    run(_with(load(config), host=host, port=port, workers=workers), config)


@main.command()
@_config_option
@click.option("-A", "--app", required=True, help="The Celery app, such as proj or proj:app.")
@click.option("--type", "queue_type", default="celery", show_default=True, help="Queue type.")
def dispatch(config: str | None, app: str, queue_type: str) -> None:
    """Publish Celery tasks when they are due (push)."""
    from .dispatcher import Dispatcher  # Celery: the server does not need it

    with _store_of(config) as store:
        dispatcher = Dispatcher(_find_app(app), store, identifier("queue_type", queue_type))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: dispatcher.stop())
        dispatcher.run()


@main.command()
@_config_option
@click.option("--once", is_flag=True, help="Show it once, and end.")
def top(config: str | None, once: bool) -> None:
    """Show the queue types, what waits and runs, and their rates."""
    from rich.console import Console

    from .top import Top

    console = Console()
    found = Top(BlockingStore(load(config)))
    if once or not console.is_terminal:
        console.print(found.look())
        return
    with contextlib.suppress(KeyboardInterrupt):
        found.run(console)


@main.command()
@click.option("--seconds", type=click.FloatRange(1, 600), default=15, show_default=True)
def demo(seconds: float) -> None:
    """Run a server, 50 customers at different rates and workers, and show releases and limits."""
    from rich.console import Console

    from .demo import run

    sys.exit(run(seconds, Console()))


def _find_app(name: str) -> Any:
    from celery.app.utils import find_app

    sys.path.insert(0, os.getcwd())
    try:
        return find_app(name)
    except (ImportError, AttributeError) as error:
        raise click.BadParameter(f"{name!r} is no Celery app: {error}", param_hint="-A") from None


@contextlib.contextmanager
def _store_of(config: str | None) -> Iterator[BlockingStore]:
    """The store that the settings name; an embedded one runs for the time of the block."""
    settings = load(config)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with contextlib.ExitStack() as stack:
        if settings.redis_conn_type == "embedded":
            stack.enter_context(embedded.running(settings.redis_directory))
        yield BlockingStore(settings)


if __name__ == "__main__":
    sys.exit(main())
