"""What operators ask for: a subscriber's history, what is stuck, and setting it going again."""

from __future__ import annotations

import argparse
import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any

from .errors import GatewayError


def add_commands(commands: Any) -> None:
    """Add the operators' commands to a parser."""
    number = commands.add_parser("subscriber", help="the subscriptions of a number, with proof")
    number.add_argument("mobile_number", help="such as +639181234567")
    number.add_argument("--json", action="store_true", help="with what the provider posted")
    ended = commands.add_parser("unsubscribe", help="end every subscription of a number")
    ended.add_argument("mobile_number", help="such as +639181234567")
    ended.add_argument("--reason", default="an operator", help="what is kept as the proof")
    for name, text in (
        ("outbox", "outbound messages that are not sent: queued and failed"),
        ("requeue", "publish again what waits in the database, such as after a broker's loss"),
        ("resend", "queue failed messages again that were given up, not those refused"),
    ):
        parser = commands.add_parser(name, help=text)
        parser.add_argument(
            "--older-than",
            default="0s" if name == "outbox" else "15m",
            metavar="AGE",
            help="such as 90s, 15m, 2h, 3d; default %(default)s",
        )
        if name != "outbox":
            parser.add_argument("--dry-run", action="store_true", help="only count")


def run(chosen: argparse.Namespace) -> int:
    """Run an operator's command and return the exit code."""
    if chosen.command == "subscriber":
        return show_subscriber(chosen.mobile_number, chosen.json)
    if chosen.command == "unsubscribe":
        return unsubscribe(chosen.mobile_number, chosen.reason)
    before = datetime.now(timezone.utc) - read_age(chosen.older_than)
    if chosen.command == "outbox":
        return show_outbox(before)
    from . import recovery  # brings Celery along

    work = recovery.requeue if chosen.command == "requeue" else recovery.resend
    for what, count in work(before, dry_run=chosen.dry_run).items():
        print(f"{count:6} {what}")
    return 0


def read_age(text: str) -> timedelta:
    """``90s``, ``15m``, ``2h`` or ``3d``; raises GatewayError."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise GatewayError(f"--older-than is {text!r}: give a number and s, m, h or d, as 15m.")
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    return timedelta(**{units[match[2]]: int(match[1])})


def show_subscriber(number: str, as_json: bool) -> int:
    """Print each subscription of a number, with the texts that began and ended it."""
    from .runtime import database
    from .store.subscribers import history

    number = read_number(number)
    with database().reading() as connection:
        rows = history(connection, number)
    if as_json:
        print(json.dumps([dict(row._mapping) for row in rows], default=str, indent=2))
    elif not rows:
        print(f"{number} never subscribed to anything.")
    else:
        for row in rows:
            print(f"{number} {row.keyword}: began {_when(row, 'began')}")
            ended = f"ended {_when(row, 'ended')}" if row.ended_at else "goes on"
            if row.ended_reason:
                ended = f"ended {row.ended_at:%Y-%m-%d %H:%M:%S} UTC by {row.ended_reason!r}"
            print(f"{' ' * len(number)} {row.keyword}: {ended}")
    return 0


def unsubscribe(number: str, reason: str) -> int:
    """End every subscription of a number, as STOP does; the reason is kept."""
    from .runtime import database
    from .store.subscribers import end_subscriptions, subscriber_id

    number = read_number(number)
    with database().transaction() as connection:
        ended = end_subscriptions(connection, subscriber_id(connection, number), reason)
    print(f"{number}: {ended} subscriptions ended")
    return 0


def read_number(number: str) -> str:
    """A telephone number in the form of E.164; raises GatewayError."""
    from .settings import settings
    from .texts import normalise_number

    try:
        return normalise_number(number, settings().region)
    except ValueError as error:
        raise GatewayError(f"{number!r}: {error}") from None


def _when(row: Any, what: str) -> str:
    at, message, request_id = (
        row._mapping[f"{what}_{name}"] for name in ("at", "message", "request_id")
    )
    return f"{at:%Y-%m-%d %H:%M:%S} UTC by the text {message!r} (request_id {request_id})"


def show_outbox(before: datetime) -> int:
    """Print counts and the latest reasons of messages that are not sent."""
    from .recovery import unsent
    from .runtime import database

    with database().reading() as connection:
        rows = unsent(connection, before)
    for row in rows:
        since = f"since {row.oldest:%Y-%m-%d %H:%M:%S} UTC"
        print(f"{row.count:6} {row.state:8} {since}  {row.error or ''}")
    if not rows:
        print("Nothing waits and nothing has failed.")
    return 0
