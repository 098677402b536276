"""The command ``rate-limited-queue``."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import click

from .errors import RateLimitedQueueError
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


if __name__ == "__main__":
    sys.exit(main())
