"""STOP, which may overtake a text that waits for its keyword's worker; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime, timezone
from pathlib import Path

import pytest
from sms_gateway.database import Database
from sms_gateway.keywords import Subscriber
from sms_gateway.keywords.bord import Bord
from sms_gateway.providers import Inbound
from sms_gateway.schema import outbound_message, subscription
from sms_gateway.store import inbound
from sms_gateway.tasks.message import answer_without_keyword
from sms_gateway.texts import Text
from sqlalchemy import select

NUMBER = "+639181234567"


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/sms.sqlite3" if is_sqlite else ""
    found = Database(url or request.getfixturevalue("postgres_url"))
    found.create_tables()
    yield found
    found.close()


def store(database: Database, request_id: str, message: str) -> int:
    """Store a text, as the queue ``message`` does."""
    moment = datetime.now(timezone.utc)
    text = Inbound(request_id, NUMBER, "2929", message, moment, {})
    word = "bord" if message.startswith("bord") else None
    with database.transaction() as connection:
        return inbound.store(connection, "chikka", text, word).id


def answer(database: Database, inbound_id: int, handler: inbound.Handler) -> str | None:
    """Have it answered; the message id of its reply."""
    with database.transaction() as connection:
        return inbound.answer(connection, inbound_id, handler)


def receive_stop(database: Database) -> str | None:
    """A STOP is stored and answered in one transaction, as the queue ``message`` does."""
    moment = datetime.now(timezone.utc)
    text = Inbound("stop", NUMBER, "2929", "STOP", moment, {})
    with database.transaction() as connection:
        stored = inbound.store(connection, "chikka", text, None)
        return inbound.answer(connection, stored.id, answer_without_keyword)


def is_subscribed(database: Database) -> bool:
    with database.reading() as connection:
        query = select(subscription.c.id).where(subscription.c.ended_at.is_(None))
        return connection.scalar(query) is not None


def test_a_text_that_waits_does_not_undo_a_later_stop(database: Database) -> None:
    waits = store(database, "1", "bord on")
    stop = store(database, "2", " Stop ")
    assert answer(database, stop, answer_without_keyword) is not None
    assert answer(database, waits, Bord.answer) is None  # "... no more texts from us"
    assert not is_subscribed(database)
    with database.reading() as connection:
        (row,) = connection.execute(select(subscription)).all()
        assert (row.began_by, row.ended_by) == (waits, stop)
        assert len(connection.execute(select(outbound_message)).all()) == 1
    # Who comes back afterwards is welcome.
    assert answer(database, store(database, "3", "bord on"), Bord.answer) is not None
    assert is_subscribed(database)


def test_a_stop_in_the_middle_of_the_answer_wins(database: Database) -> None:
    waits = store(database, "1", "bord on")
    with ThreadPoolExecutor(1) as pool:
        stops: list[Future[str | None]] = []

        def slow(text: Text, who: Subscriber) -> str | None:
            reply = Bord.answer(text, who)
            stops.append(pool.submit(receive_stop, database))
            wait(stops, 0.5)
            return reply

        assert answer(database, waits, slow) is not None
        assert stops[0].result() is not None
    assert not is_subscribed(database)
