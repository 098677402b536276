"""The ledger has every message; with MQ_RECORD there is a row of each besides."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from message_queue import Consumer, Producer
from message_queue.application import make_app
from message_queue.processes import MonitorProcess, ServerProcess
from message_queue.record import message as message_table
from message_queue.settings import Settings
from message_queue.topics import MESSAGE
from sqlalchemy.engine import make_url
from sqlalchemy.schema import CreateTable

from cadasta.workertoolbox import Ledger

MESSAGES = ["plain", "  spaces \n\r\n\tand lines\n", "Ünïcode ✓ 🂡 \u0000 \u2028", ""]


@pytest.fixture
def app(
    broker: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Celery]:
    """The server's app, in this process."""
    for name, value in broker.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CELERY_RESULT_BACKEND", f"toolbox+sqlite:///{tmp_path}/ledger.sqlite3")
    app = make_app(Settings())
    yield app
    app.close()


def test_every_message_is_in_the_ledger(
    app: Celery,
    start_server: Callable[..., ServerProcess],
    topic: str,
    tmp_path: Path,
    wait_until: Callable[..., Any],
) -> None:
    server = start_server(port=None)
    monitor = MonitorProcess(tmp_path, os.environ)
    monitor.start()
    try:
        with Producer(topic, port=server.port) as producer:
            for message in MESSAGES:
                producer.publish(message)
        with Ledger.from_app(app) as ledger:
            ledger.upgrade()
            wait_until(lambda: ledger.summary().total == len(MESSAGES), "all messages")
            found = sorted(ledger.find(limit=10), key=lambda task: task.published_at)
            assert [task.args for task in found] == [[message] for message in MESSAGES]
            assert {task.name for task in found} == {MESSAGE}
            assert {task.queue for task in found} == {f"mq.{topic}"}
            assert list(ledger.unfinished(older_than=timedelta(0))) == []
        with Consumer(topic, port=server.port) as consumer:
            assert [consumer.fetch(30) for _ in MESSAGES] == MESSAGES
    finally:
        assert monitor.stop() == 0


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_row_of_each_message(
    database: str,
    request: pytest.FixtureRequest,
    start_server: Callable[..., ServerProcess],
    topic: str,
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/rows.sqlite3"
    if database == "postgresql":
        url = request.getfixturevalue("postgres_url")
    server = start_server({"MQ_RECORD": "1", "CELERY_LEDGER_URL": url})
    engine = sa.create_engine(url)

    def rows() -> list[Any]:
        query = "SELECT content, is_fetched, consumed_timestamp FROM mq_message ORDER BY %s"
        with engine.connect() as connection:
            assert set(connection.scalars(sa.text("SELECT topic FROM mq_message"))) == {topic}
            return list(connection.execute(sa.text(query % "publish_timestamp")))

    with Producer(topic, port=server.port) as producer:
        for message in MESSAGES:
            producer.publish(message)
    shown = [message.replace("\0", "\u2400") for message in MESSAGES]
    assert [tuple(row) for row in rows()] == [(message, False, None) for message in shown]
    with Consumer(topic, port=server.port) as consumer:
        assert [consumer.fetch(30) for _ in MESSAGES[:3]] == MESSAGES[:3]
        assert [bool(row.is_fetched) for row in rows()] == [True, True, False, False]
    assert [row.consumed_timestamp is not None for row in rows()] == [True, True, True, False]
    engine.dispose()


@pytest.mark.parametrize("scheme", ["mysql+pymysql", "mariadb+pymysql"])
def test_rows_hold_any_text_whatever_the_database_is_made_for(scheme: str) -> None:
    made = CreateTable(message_table).compile(dialect=make_url(f"{scheme}://").get_dialect()())
    assert "CHARSET=utf8mb4" in str(made)
