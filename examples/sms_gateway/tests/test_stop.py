"""Who is subscribed, in whatever order texts are handled; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sms_gateway.database import Database
from sms_gateway.keywords import Subscriber
from sms_gateway.keywords.bord import Bord
from sms_gateway.migrations import VERSION
from sms_gateway.providers import Inbound, Receipt
from sms_gateway.schema import outbound_message, schema_version, subscription
from sms_gateway.store import inbound, outbound
from sms_gateway.store.outbound import Claim, Nothing
from sms_gateway.store.subscribers import Moment, end_subscriptions
from sms_gateway.tasks.message import answer_without_keyword
from sms_gateway.texts import Text
from sqlalchemy import inspect, select, text

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


NOW = datetime.now(timezone.utc)


def say(
    database: Database,
    request_id: str,
    message: str,
    sent: float | None = None,
    received: float = 0,
    **more: Any,
) -> str | None:
    """A text, sent and received so many seconds from now, is stored and answered."""
    sent_at = None if sent is None else NOW + timedelta(seconds=sent)
    received_at = NOW + timedelta(seconds=received)
    posted = Inbound(request_id, NUMBER, "2929", message, sent_at, {}, received_at, **more)
    is_bord = message.lower().startswith("bord")
    with database.transaction() as connection:
        stored = inbound.store(connection, "chikka", posted, "bord" if is_bord else None)
    return answer(database, stored.id, Bord.answer if is_bord else answer_without_keyword)


def reply_of(database: Database, message_id: str | None) -> str:
    assert message_id is not None
    query = select(outbound_message.c.message).where(outbound_message.c.message_id == message_id)
    with database.reading() as connection:
        return str(connection.scalar(query))


ORDERS: list[tuple[tuple[float | None, float], tuple[float | None, float]]] = [
    ((0, 9), (5, 6)),  # sent, received: it overtook on its way to us
    ((0, 200_000), (1, 2)),  # posted again after two days
    ((-(10**9), 9), (-(10**9) + 5, 6)),  # by a clock that is wrong for both
    ((None, 5), (None, 6)),  # without a clock, it overtook in our queues
    ((None, 5), (3, 6)),
    ((5, 5), (5, 6)),  # by a clock of whole seconds
    ((5, 6), (-(10**9), 7)),  # by a clock that is wrong for one
    ((10**9, 6), (7, 7)),
    ((-(10**6), 9), (5, 6)),  # posted again after eleven days, or by a wrong clock
]
ENDS = ["BORD OFF!", "bord stop", "STOP", "cancel"]


@pytest.mark.parametrize(
    ("end", "on", "off"),
    [("bord off", *one) for one in ORDERS] + [(one, *ORDERS[0]) for one in ENDS],
)
def test_an_end_is_not_undone_by_an_older_text(
    end: str,
    on: tuple[float | None, float],
    off: tuple[float | None, float],
    database: Database,
) -> None:
    assert say(database, "off", end, *off) is not None
    assert say(database, "on", "bord on", *on) is None  # "You are subscribed" would not be true
    assert not is_subscribed(database)
    later = max(9, on[1], off[1])
    assert say(database, "again", "bord on", later + 1, later + 2) is not None
    assert is_subscribed(database)


@pytest.mark.parametrize("end", ["bord off", "STOP"])
def test_an_end_that_is_late_does_not_undo_a_newer_text(end: str, database: Database) -> None:
    say(database, "on", "bord on", 0, 1)
    say(database, "again", "bord off", 2, 3)
    assert say(database, "back", "bord on", 8, 9) is not None
    assert say(database, "late", end, 5, 10) is None
    assert is_subscribed(database)


def test_the_later_of_two_moments_is_found_by_what_is_known() -> None:
    first = Moment(NOW, NOW + timedelta(seconds=9), 2)
    second = Moment(NOW + timedelta(seconds=1), NOW + timedelta(seconds=3), 1)
    assert second.ends(first) and not first.ends(second)
    assert not first.ends(first)
    told = Moment(None, NOW + timedelta(seconds=5), 0)
    assert first.ends(told) and told.ends(second)
    ancient = Moment(NOW - timedelta(days=4000), NOW + timedelta(seconds=4), 3)
    assert ancient.ends(second) and second.ends(ancient)  # in doubt, the end
    future = Moment(NOW + timedelta(days=4000), NOW + timedelta(seconds=4), 4)
    assert future.ends(second) and not future.ends(first)


def test_start_undoes_the_last_stop(database: Database) -> None:
    assert "Text one of: BORD HELP" in reply_of(database, say(database, "0", "START", 0))
    say(database, "1", "bord on", 1)
    assert "already" in reply_of(database, say(database, "2", "bord on", 2))
    say(database, "3", "stop!", 3)
    say(database, "4", "stop", 4)  # ends nothing more
    assert not is_subscribed(database)
    assert "subscribed to BORD" in reply_of(database, say(database, "5", "Start.", 5))
    assert is_subscribed(database)
    say(database, "6", "STOP", 6)
    say(database, "7", "bord on", 7)
    say(database, "8", "bord off", 8)
    assert "Text one of: BORD HELP" in reply_of(database, say(database, "9", "YES", 9))
    assert not is_subscribed(database)  # whose last word of it was off


def test_what_the_provider_has_answered_is_done_without_a_reply(database: Database) -> None:
    say(database, "1", "bord on", None, 1)
    assert say(database, "2", "Tama na", None, 2, opt_out="stop") is None
    assert not is_subscribed(database)
    assert say(database, "3", "Sige", None, 3, opt_out="start") is None
    assert is_subscribed(database)
    assert say(database, "4", "Ano", None, 4, opt_out="help") is None


def test_help_tells_how_to_end(database: Database) -> None:
    reply = reply_of(database, say(database, "1", "HELP!", 1))
    assert "BORD HELP" in reply and "STOP" in reply


def test_who_is_not_understood_for_sure_is_told_how_to_come_back(database: Database) -> None:
    assert "BORD HELP" not in reply_of(database, say(database, "1", "STOP.", 1))
    reply = reply_of(database, say(database, "2", "please stop it", 2))
    assert "unsubscribed from everything" in reply and "BORD HELP" in reply


def test_a_reply_that_waits_is_not_sent_to_who_has_said_stop(database: Database) -> None:
    waits, doubtful = (say(database, str(n), "bord help", 1) for n in (1, 2))
    assert waits and doubtful
    with database.transaction() as connection:
        assert isinstance(outbound.claim(connection, doubtful, 0, 0), Claim)
    confirmation = say(database, "3", "STOP", 2)
    with database.transaction() as connection:
        assert outbound.claim(connection, waits, 0, 60) == Nothing("unsubscribed")
        assert outbound.claim(connection, doubtful, 0, 60) == Nothing("unsubscribed")
        assert isinstance(outbound.claim(connection, confirmation or "", 0, 60), Claim)
    with database.reading() as connection:
        errors = list(connection.scalars(select(outbound_message.c.error)))
    assert errors[:2] == [
        "unsubscribed before it was sent",
        "unsubscribed; an attempt before that may have been sent",
    ]


def test_the_providers_refusal_ends_the_subscription(database: Database) -> None:
    say(database, "1", "bord on", None, -9)
    with database.transaction() as connection:
        assert end_subscriptions(connection, 1, "21610: unsubscribed") == 1
    assert not is_subscribed(database)
    say(database, "2", "bord on", None, -1)  # said before, and handled late
    assert not is_subscribed(database)
    say(database, "3", "START", None, 9999)
    assert is_subscribed(database)


def test_a_receipt_of_that_refusal_ends_it_once(database: Database) -> None:
    message_id = say(database, "1", "bord on", None, -9)
    receipt = Receipt("failed", message_id, "SM1", NOW, None, "21610", {"a": "b"}, True)
    with database.transaction() as connection:
        outbound.apply_receipt(connection, "chikka", receipt)
    assert not is_subscribed(database)
    say(database, "2", "bord on", None, 9999)
    with database.transaction() as connection:
        outbound.apply_receipt(connection, "chikka", receipt)
    assert is_subscribed(database)


def make_old(database: Database) -> None:
    """Make the tables what they were in version 1."""
    with database.transaction() as connection:
        for statement in (
            "DROP TABLE opt_out",
            "DROP TABLE sms_schema_version",
            "ALTER TABLE subscription DROP COLUMN ended_reason",
            "ALTER TABLE inbound_message DROP COLUMN opt_out",
        ):
            connection.execute(text(statement))


@pytest.mark.parametrize(
    ("messages", "remains"),
    [
        (["STOPALL"], False),
        (["bord stop"], False),
        (["bord off!"], False),
        (["bord help", "thanks"], True),
        (["Stop please", "bord on"], True),
        (["bord on", "“Stop”"], False),
        (["bord STOP", "bord on", "Cancel."], False),
    ],
)
def test_an_older_versions_database_is_raised(
    messages: list[str], remains: bool, database: Database
) -> None:
    say(database, "0", "bord on", 0)
    waiting = store(database, "waits", "bord on")
    with database.transaction() as connection:  # "9181234567" in PH
        stranger = Inbound("s", "+9181234567", "2929", "", NOW, {"mobile_number": "9181234567"})
        stored = inbound.store(connection, "chikka", stranger, "bord")
        inbound.answer(connection, stored.id, lambda _, who: f"{who.subscribe('bord')}")
    make_old(database)
    with database.engine.begin() as connection:
        query = (
            "INSERT INTO inbound_message (provider, request_id, task_id, subscriber_id, shortcode,"
            " message, keyword, sent_at, received_at, handled_at, posted)"
            " SELECT provider, :id, :id, subscriber_id, shortcode, :message, :word, sent_at,"
            " received_at, received_at, posted"
            " FROM inbound_message WHERE request_id = '0'"
        )
        for number, message in enumerate(messages):
            word = "bord" if message.startswith("bord") else None
            values = {"id": f"old{number}", "message": message, "word": word}
            connection.execute(text(query), values)
    others = [Database(database.engine.url.render_as_string(hide_password=False)) for _ in "123"]
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda other: other.create_tables(), others))
    assert is_subscribed(database) is remains
    with database.reading() as connection:
        assert list(connection.scalars(select(schema_version.c.version))) == [VERSION]
        reasons = list(connection.scalars(select(subscription.c.ended_reason)))
        columns = {one["name"] for one in inspect(connection).get_columns("subscription")}
    assert "ended_reason" in columns
    assert "an older version read the number 9181234567 as +9181234567" in reasons
    for other in others:
        other.close()
    assert waiting
    say(database, "new", "bord on", 60, 60)
    assert is_subscribed(database)
