"""The commands ``start``, ``stop``, ``status``, ``producer``, ``consumer`` and ``demo``."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from typing import Any

import click

from .client import Consumer, Producer
from .control import ask_status
from .errors import MessageQueueError, NotRunningError
from .settings import HOST, PORT, Settings

#: Exit code of ``status`` where no server runs, as for the status of a system service.
NOT_RUNNING = 3

_port = click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=PORT,
    show_default=True,
    help="The server's port.",
)
_host = click.option("--host", default=HOST, show_default=True, help="The server's address.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A message queue that a beginner can type to, in front of a real broker."""


class _Failure(click.ClickException):
    """An error without a traceback."""


@main.command()
@_port
@_host
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    show_default=True,
    help="How much to log.",
)
def start(port: int, host: str, log_level: str) -> None:
    """Run the server, in the foreground, until `stop` or a signal."""
    from .serve import serve  # brings Celery along

    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        serve(Settings.from_environ(), host, port)
    except OSError as error:
        raise _Failure(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    except Exception as error:
        if _is_expected(error):
            raise _Failure(str(error)) from None
        raise


@main.command()
@_port
@click.option("--timeout", default=30.0, show_default=True, help="Seconds to wait for its end.")
def stop(port: int, timeout: float) -> None:
    """Stop the server of this machine that listens on the port."""
    try:
        pid = int(ask_status(port)["pid"])
        os.kill(pid, signal.SIGTERM)
    except (NotRunningError, ProcessLookupError) as error:
        raise _Failure(str(error)) from None
    deadline = time.monotonic() + timeout
    while _is_running(port, pid):
        if time.monotonic() > deadline:
            raise _Failure(f"the server (process {pid}) has not ended in {timeout:.0f} seconds")
        time.sleep(0.05)
    click.echo(f"stopped (process {pid})")


def _is_running(port: int, pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return bool(ask_status(port)["pid"] == pid)
    except (NotRunningError, ProcessLookupError):
        return False


@main.command()
@_port
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
def status(port: int, as_json: bool) -> None:
    """Tell how the server of this machine is. Exit code 3 where none runs."""
    try:
        found = ask_status(port)
    except NotRunningError as error:
        click.echo(json.dumps({"running": False}) if as_json else str(error))
        sys.exit(NOT_RUNNING)
    if as_json:
        click.echo(json.dumps({"running": True, **found}))
        return
    click.echo(f"running on port {port}")
    for name, value in found.items():
        click.echo(f"  {name.replace('_', ' '):20}{value}")


@main.command()
@click.argument("topic")
@_port
@_host
@click.option("--whole", is_flag=True, help="All of standard input is one message.")
def producer(topic: str, port: int, host: str, whole: bool) -> None:
    """Publish each line of standard input to TOPIC."""
    count = 0
    with _Friendly(), Producer(topic, host, port) as client:
        if whole:
            client.publish(sys.stdin.buffer.read().decode())
            count = 1
        else:
            prompt = "message (Ctrl-D ends): " if sys.stdin.isatty() else ""
            while (line := _line(prompt)) is not None:
                client.publish(line)
                count += 1
                if prompt:
                    click.echo("acknowledged")
    click.echo(f"{count} acknowledged", err=True)


def _line(prompt: str) -> str | None:
    if prompt:
        click.echo(prompt, nl=False)
    line = sys.stdin.buffer.readline()
    return line.decode().removesuffix("\n") if line else None


@main.command()
@click.argument("topic")
@_port
@_host
@click.option("--count", type=int, help="End after so many messages.")
@click.option("--timeout", type=float, help="End when none has come for so many seconds.")
def consumer(topic: str, port: int, host: str, count: int | None, timeout: float | None) -> None:
    """Print the messages of TOPIC as they come, each on a line; Ctrl-C ends."""
    left = count
    with _Friendly(), Consumer(topic, host, port) as client:
        try:
            while left is None or left > 0:
                message = client.fetch(timeout)
                if message is None:
                    break
                sys.stdout.buffer.write(message.encode() + b"\n")
                sys.stdout.flush()
                left = None if left is None else left - 1
        except KeyboardInterrupt:
            pass


@main.command()
@click.option("--messages", default=1000, show_default=True, help="How many to send.")
def demo(messages: int) -> None:
    """Run a server, two producers and two consumers; kill the server; count what arrives."""
    from .demo import run

    sys.exit(run(messages))


def _is_expected(error: BaseException) -> bool:
    if isinstance(error, MessageQueueError):
        return True
    from cadasta.workertoolbox import ToolboxError

    return isinstance(error, ToolboxError)


class _Friendly:
    """Turns what can go wrong into a line for people."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, UnicodeDecodeError):
            raise _Failure(f"the input is no UTF-8 at byte {error.start}") from None
        if isinstance(error, MessageQueueError | OSError | ValueError):
            raise _Failure(str(error)) from None
