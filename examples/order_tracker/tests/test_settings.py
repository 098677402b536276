"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from order_tracker.errors import SettingError
from order_tracker.settings import Settings

Environ = dict[str, str]


def test_with_nothing_set_everything_is_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = Settings.from_environ({"PATH": "/bin", "RTB_DB_HOST": " "})
    folder = tmp_path / ".order-tracker"
    assert found.db_url == f"sqlite:///{folder}/orders.sqlite3"
    assert found.ledger_url == f"sqlite:///{folder}/ledger.sqlite3"
    assert found.broker_url == f"embedded:///{folder}/broker.sqlite3"
    assert (found.api_host, found.api_port, found.box) == ("127.0.0.1", 8080, "outbox")
    assert (found.max_queue, found.stall_timeout) == (None, None)


@pytest.mark.parametrize(
    ("environ", "db_url", "broker_url"),
    [
        (
            {"RTB_DB_HOST": "db"},
            "postgresql+psycopg2://postgres@db:5432/postgres",
            "amqp://guest:guest@rabbit:5672//",
        ),
        (
            {"RTB_BROKER_HOST": "[::1]:5673"},
            "postgresql+psycopg2://postgres@postgres:5432/postgres",
            "amqp://guest:guest@[::1]:5673//",
        ),
        (
            {"RTB_DB_URL": "postgresql://me:p%40ss@db/x", "RTB_DB_HOST": "no:1"},
            "postgresql+psycopg2://me:p%40ss@db/x",
            "amqp://guest:guest@rabbit:5672//",
        ),
        (
            {"RTB_DB_URL": "sqlite:////data/o.db"},
            "sqlite:////data/o.db",
            "embedded:////data/broker.sqlite3",
        ),
        (
            {"RTB_DB_URL": "sqlite:////data/o.db", "RTB_BROKER_URL": "redis://r/1"},
            "sqlite:////data/o.db",
            "redis://r/1",
        ),
    ],
)
def test_urls_win_over_hosts_and_what_is_missing_has_the_references_default(
    environ: Environ, db_url: str, broker_url: str
) -> None:
    found = Settings.from_environ(environ)
    assert (found.db_url, found.broker_url) == (db_url, broker_url)
    assert "p%40ss" not in repr(found)


def test_everything_else() -> None:
    found = Settings.from_environ(
        {
            "RTB_BROADCAST_MAX_QUEUE": "7",
            "RTB_API_HOST": "rtb-boa:8080",
            "RTB_BROKER_BOX": "box",
            "RTB_STALL_TIMEOUT": "1.5",
            "RTB_ERROR_RATE": "0",
            "RTB_SEED": "x",
        }
    )
    assert (found.max_queue, found.stall_timeout, found.error_rate) == (7, 1.5, 0)
    assert (found.api_host, found.api_port) == ("rtb-boa", 8080)
    assert (found.box, found.seed) == ("box", "x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RTB_BROADCAST_MAX_QUEUE", "0"),
        ("RTB_BROADCAST_MAX_QUEUE", "many"),
        ("RTB_STALL_TIMEOUT", "0"),
        ("RTB_STALL_TIMEOUT", "nan"),
        ("RTB_STALL_TIMEOUT", "inf"),
        ("RTB_ERROR_RATE", "1.1"),
        ("RTB_ERROR_RATE", "-0.1"),
        ("RTB_API_HOST", "host:port"),
        ("RTB_API_HOST", ":8080"),
        ("RTB_BROKER_BOX", "agent"),
        ("RTB_DB_URL", "nonsense"),
        ("RTB_DB_URL", "mysql://x/y"),
        ("RTB_DB_URL", "sqlite://"),
        ("RTB_BROKER_URL", "rabbit:5672"),
        ("RTB_BROKER_URL", "ampq://guest@rabbit//"),
    ],
)
def test_what_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=name):
        Settings.from_environ({name: value})
