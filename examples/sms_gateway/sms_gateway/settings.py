"""The gateway's settings, all from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import phonenumbers

from .errors import SettingsError

T = TypeVar("T", int, float)

#: Where the embedded broker and the SQLite databases are, where no server is named.
DIRECTORY = ".sms_gateway"

#: The longest countdown that a task is published with, in seconds. RabbitMQ closes a channel that
#: holds a message for 30 minutes; a longer wait is several of these.
LONGEST_COUNTDOWN = 900


@dataclass(frozen=True)
class Settings:
    """What an operator can set; :func:`settings` reads it once a process."""

    #: ``SMS_DATABASE_URL``: ``postgresql://user:password@host/name`` or ``sqlite:////path``;
    #: default: a SQLite file in :attr:`directory`.
    database_url: str = field(repr=False)
    #: Whether ``SMS_DATABASE_URL`` was given.
    has_database: bool
    #: ``SMS_DIRECTORY``: the folder of everything that needs no server, default ``.sms_gateway``.
    directory: Path
    #: ``SMS_PROVIDER``: ``chikka`` (default) or ``twilio``.
    provider: str
    #: ``SMS_PROVIDER_URL``: where texts are sent to; default: the provider's own address.
    provider_url: str | None
    #: ``SMS_OPERATOR_TOKEN``: the bearer token of operators; without it their routes are off.
    operator_token: str | None = field(repr=False)
    #: ``SMS_PUBLIC_URL``: what the provider calls this gateway, such as ``https://sms.example.org``.
    public_url: str | None
    #: ``SMS_HOST``, ``SMS_PORT``: where the api listens, default 127.0.0.1:8000.
    host: str
    port: int
    #: ``SMS_REGION``: the country of numbers without a country code, default ``PH``.
    region: str
    #: ``SMS_SEND_TIMEOUT``: seconds until a provider's answer is given up, default 10.
    send_timeout: float
    #: ``SMS_SEND_ATTEMPTS``: how often a text is tried before it counts as failed, default 30;
    #: with the waits between them, that outlasts an outage of more than an hour.
    send_attempts: int
    #: ``SMS_SEND_WAIT``: seconds before the second attempt, default 1; doubled each time up to
    #: ``SMS_SEND_MAX_WAIT``, default 300.
    send_wait: float
    send_max_wait: float
    #: ``SMS_BROADCAST_CHUNK``: subscribers that one task of a broadcast queues, default 500.
    broadcast_chunk: int

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read and check the environment.

        Raises:
            SettingsError: names the variable and what to do.
        """
        directory = Path(environ.get("SMS_DIRECTORY") or DIRECTORY).expanduser().absolute()
        url = _database_url(environ.get("SMS_DATABASE_URL"))
        region = (environ.get("SMS_REGION") or "PH").upper()
        if region not in phonenumbers.SUPPORTED_REGIONS:
            raise SettingsError(f"SMS_REGION is {region!r}: give a country's two letters, as PH.")
        public_url = environ.get("SMS_PUBLIC_URL") or None
        for name in ("SMS_PUBLIC_URL", "SMS_PROVIDER_URL"):
            value = environ.get(name)
            if value and not value.startswith(("http://", "https://")):
                raise SettingsError(f"{name} does not begin with http:// or https://.")
        return cls(
            database_url=url or f"sqlite:///{directory}/sms.sqlite3",
            has_database=bool(url),
            directory=directory,
            provider=(environ.get("SMS_PROVIDER") or "chikka").strip().lower(),
            provider_url=environ.get("SMS_PROVIDER_URL") or None,
            operator_token=environ.get("SMS_OPERATOR_TOKEN") or None,
            public_url=public_url and public_url.rstrip("/"),
            host=environ.get("SMS_HOST") or "127.0.0.1",
            port=_number(environ, "SMS_PORT", 8000, 0, 65_535),
            region=region,
            send_timeout=_number(environ, "SMS_SEND_TIMEOUT", 10.0, 0.1, 600),
            send_attempts=_number(environ, "SMS_SEND_ATTEMPTS", 30, 1, 1000),
            send_wait=_number(environ, "SMS_SEND_WAIT", 1.0, 0.1, 3600),
            send_max_wait=_number(environ, "SMS_SEND_MAX_WAIT", 300.0, 0.1, 3600),
            broadcast_chunk=_number(environ, "SMS_BROADCAST_CHUNK", 500, 1, 10_000),
        )


def _database_url(url: str | None) -> str | None:
    # Without a driver, the version of SQLAlchemy would decide which one is asked for.
    scheme, separator, rest = (url or "").partition("://")
    if scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg2{separator}{rest}"
    return url


def _number(environ: Mapping[str, str], name: str, default: T, low: float, high: float) -> T:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = type(default)(text)
    except ValueError:
        value = type(default)(-1)
    if not low <= value <= high:
        raise SettingsError(f"{name} is {text!r}: give a number from {low:g} to {high:g}.")
    return value


@cache
def settings() -> Settings:
    """The settings of this process, read from the environment at the first call."""
    return Settings.from_environment()
