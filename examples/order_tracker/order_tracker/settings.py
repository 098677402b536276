"""Settings from the RTB_ variables of the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from kombu.transport import TRANSPORT_ALIASES
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from .errors import SettingError

DEFAULT_MAX_QUEUE = 50
DEFAULT_STALL_TIMEOUT = 300.0  # seconds
YEAR = 31_536_000.0  # seconds
DEFAULT_API_HOST = "127.0.0.1:8080"
DEFAULT_DB_HOST = "postgres:5432"
DEFAULT_BROKER_HOST = "rabbit:5672"
DEFAULT_BOX = "outbox"
DEFAULT_DATABASE_FILE = ".order-tracker/orders.sqlite3"
DEFAULT_WORK = "order_tracker.work:random_outcome"
#: Queues that the box cannot be named after.
TAKEN_QUEUES = ("agent", "inbox", "celery", "platform.fifo")
_SERVERS = ("RTB_DB_HOST", "RTB_DB_URL", "RTB_BROKER_HOST", "RTB_BROKER_URL")


@dataclass(frozen=True)
class Settings:
    """What a process of the order tracker has to know.

    Args:
        db_url: SQLAlchemy URL of the orders' database (``RTB_DB_URL``, ``RTB_DB_HOST``).
        broker_url: URL of the broker (``RTB_BROKER_URL``, ``RTB_BROKER_HOST``).
        box: the queue that the leader listens to (``RTB_BROKER_BOX``, default outbox).
        api_host, api_port: where the API listens (``RTB_API_HOST``, default 127.0.0.1:8080).
        max_queue: most units in flight (``RTB_BROADCAST_MAX_QUEUE``). None: not set here. It is
            kept in the database, so that it is the same for all processes; 50 until somebody sets
            it.
        stall_timeout: seconds without a move after which a unit is fed again
            (``RTB_STALL_TIMEOUT``). None: not set here; kept in the database too, 300 at first.
        error_rate: part of the units that the random work fails, 0 to 1 (``RTB_ERROR_RATE``, 0.1).
        seed: makes the random outcomes repeatable (``RTB_SEED``); None: each run differs.
        work: the function that does the work, as module:function (``RTB_WORK``).
        work_seconds: seconds that the random work takes (``RTB_WORK_SECONDS``, 0.2).
    """

    db_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    box: str = DEFAULT_BOX
    api_host: str = "127.0.0.1"
    api_port: int = 8080
    max_queue: int | None = None
    stall_timeout: float | None = None
    error_rate: float = 0.1
    seed: str | None = None
    work: str = DEFAULT_WORK
    work_seconds: float = 0.2

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings.

        With no server named, everything is embedded: SQLite and the toolbox's broker in one folder.
        With a server named, what is not named has the default of the table in the README.

        Args:
            environ: the variables; default: those of this process. An empty one counts as not set.

        Raises:
            SettingError: a variable cannot be used.
        """
        found = {k: v.strip() for k, v in (environ or os.environ).items() if k.startswith("RTB_")}
        found = {name: value for name, value in found.items() if value}
        db_url = _db_url(found)
        host, port = _host_port(found, "RTB_API_HOST", DEFAULT_API_HOST)
        box = found.get("RTB_BROKER_BOX", DEFAULT_BOX)
        if box in TAKEN_QUEUES:
            raise SettingError(f"RTB_BROKER_BOX={box!r}: this queue has another use; name another.")
        return cls(
            db_url=db_url,
            broker_url=_broker_url(found, db_url),
            box=box,
            api_host=host,
            api_port=port,
            max_queue=_whole(found, "RTB_BROADCAST_MAX_QUEUE"),
            stall_timeout=_number(found, "RTB_STALL_TIMEOUT", None, above=0, most=YEAR),
            error_rate=_number(found, "RTB_ERROR_RATE", 0.1, most=1) or 0.0,
            seed=found.get("RTB_SEED"),
            work=found.get("RTB_WORK", DEFAULT_WORK),
            work_seconds=_number(found, "RTB_WORK_SECONDS", 0.2) or 0.0,
        )

    @property
    def ledger_url(self) -> str:
        """Where the toolbox keeps results and ledger: beside the orders.

        On SQLite it is a file of its own, since a file has one writer at a time.
        """
        folder = sqlite_folder(self.db_url)
        return f"sqlite:///{folder}/ledger.sqlite3" if folder else self.db_url


def sqlite_folder(db_url: str) -> Path | None:
    """The folder of a SQLite database; None for a server."""
    url = make_url(db_url)
    if url.get_backend_name() != "sqlite":
        return None
    return Path(url.database or "").absolute().parent


def _db_url(found: Mapping[str, str]) -> str:
    text = found.get("RTB_DB_URL")
    if text is None:
        embedded = found.get("RTB_BROKER_URL", "").startswith("embedded:")
        if embedded or not any(name in found for name in _SERVERS):
            return f"sqlite:///{Path(DEFAULT_DATABASE_FILE).absolute()}"
        host, port = _host_port(found, "RTB_DB_HOST", DEFAULT_DB_HOST)
        return f"postgresql+psycopg2://postgres@{_bracketed(host)}:{port}/postgres"
    try:
        url = make_url(text)
        name = url.get_backend_name()
    except (ArgumentError, ValueError):
        raise SettingError(
            "RTB_DB_URL is no database URL: write postgresql://user:password@host/name"
            " or sqlite:////folder/orders.sqlite3."
        ) from None
    if name in {"postgres", "postgresql"}:
        # The toolbox brings this driver.
        driver = url.drivername if "+" in url.drivername else "postgresql+psycopg2"
        return url.set(drivername=driver).render_as_string(hide_password=False)
    if name != "sqlite" or not url.database or url.database == ":memory:":
        raise SettingError(
            f"RTB_DB_URL names {name}: use PostgreSQL, or SQLite with a file, which all processes"
            " can share."
        )
    return url.set(database=str(Path(url.database).absolute())).render_as_string()


def _broker_url(found: Mapping[str, str], db_url: str) -> str:
    text = found.get("RTB_BROKER_URL")
    if text is not None:
        scheme, is_url, _ = text.partition("://")
        if not is_url or scheme not in {"embedded", *TRANSPORT_ALIASES}:
            raise SettingError(
                "RTB_BROKER_URL is no broker's URL: write amqp://user:password@host:5672/vhost."
            )
        return text
    folder = sqlite_folder(db_url)
    if folder and "RTB_BROKER_HOST" not in found:
        return f"embedded:///{quote(str(folder))}/broker.sqlite3"
    host, port = _host_port(found, "RTB_BROKER_HOST", DEFAULT_BROKER_HOST)
    return f"amqp://guest:guest@{_bracketed(host)}:{port}//"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _host_port(found: Mapping[str, str], name: str, default: str) -> tuple[str, int]:
    text = found.get(name, default)
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, default.rpartition(":")[2]
    if not host or not port.isdigit() or int(port) > 65_535:
        raise SettingError(f"{name}={text!r}: write host:port, as in {default}.")
    return host.strip("[]"), int(port)


def _whole(found: Mapping[str, str], name: str) -> int | None:
    text = found.get(name)
    if text is None:
        return None
    if not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise SettingError(f"{name}={text!r}: write a whole number from 1 to 100000.")
    return int(text)


def _number(
    found: Mapping[str, str],
    name: str,
    default: float | None,
    above: float | None = None,
    most: float = float("inf"),
) -> float | None:
    text = found.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not ((value > above) if above is not None else value >= 0) or not value <= most:
        bounds = f"above {above:g}" if above is not None else "of 0 or more"
        limit = f" and at most {most:g}" if most != float("inf") else ""
        raise SettingError(f"{name}={text!r}: write a number {bounds}{limit}.")
    return value
