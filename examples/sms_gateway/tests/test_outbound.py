"""Who may send a message, and what came of it: on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sms_gateway.database import Database, insert_new
from sms_gateway.providers import Inbound, Receipt
from sms_gateway.schema import broadcast, outbound_message, subscription
from sms_gateway.store import inbound, now, outbound
from sms_gateway.store.outbound import Claim, Nothing, Wait
from sms_gateway.store.subscribers import StoredSubscriber
from sms_gateway.texts import Text
from sqlalchemy import select, update


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/sms.sqlite3"
    else:
        url = request.getfixturevalue("postgres_url")
    found = Database(url)
    yield found
    found.close()


def text(request_id: str = "r") -> Inbound:
    posted = {"message": "bord on"}
    return Inbound(request_id, "+639181234567", "2929", "bord on", None, posted)


def subscribe(text: Text, who: StoredSubscriber) -> str:
    return f"{who.subscribe('bord')}"


@pytest.fixture
def message_id(database: Database) -> str:
    """A reply that waits to be sent."""
    with database.transaction() as connection:
        stored = inbound.store(connection, "chikka", text(), "bord")
        found = inbound.answer(connection, stored.id, subscribe)
    assert found is not None
    return found


def claim(database: Database, message_id: str, attempts: int = 0, lease: float = 60) -> Any:
    with database.transaction() as connection:
        return outbound.claim(connection, message_id, attempts, lease)


def row(database: Database, message_id: str) -> Any:
    query = select(outbound_message).where(outbound_message.c.message_id == message_id)
    with database.reading() as connection:
        return connection.execute(query).one()


def receipt(state: str, message_id: str | None, **more: Any) -> Receipt:
    values = {
        "provider_ref": None,
        "at": now(),
        "credits_cost": Decimal("2.50"),
        "error": "FAILED" if state == "failed" else None,
        "posted": {"status": state},
    }
    return Receipt(state=state, message_id=message_id, **{**values, **more})


def apply(database: Database, found: Receipt) -> str | None:
    with database.transaction() as connection:
        return outbound.apply_receipt(connection, "chikka", found)


def test_a_text_is_stored_and_answered_once(database: Database) -> None:
    def handle(_: int) -> tuple[bool, str | None]:
        with database.transaction() as connection:
            stored = inbound.store(connection, "chikka", text(), "bord")
        with database.transaction() as connection:
            return stored.is_new, inbound.answer(connection, stored.id, subscribe)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(handle, range(12)))
    assert [is_new for is_new, _ in found].count(True) == 1
    [message_id] = {message_id for _, message_id in found}
    assert row(database, message_id or "").message == "True"


def test_what_a_handler_that_raises_has_changed_is_not_kept(database: Database) -> None:
    def fail(text: Text, who: StoredSubscriber) -> str:
        who.subscribe("bord")
        raise KeyError("a mistake")

    with database.transaction() as connection:
        stored = inbound.store(connection, "chikka", text(), "bord")
    with pytest.raises(KeyError), database.transaction() as connection:
        inbound.answer(connection, stored.id, fail)
    with database.transaction() as connection:
        found = inbound.answer(connection, stored.id, subscribe)
    assert row(database, found or "").message == "True"


def test_one_of_many_may_send(database: Database, message_id: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: claim(database, message_id), range(12)))
    kinds = [type(one) for one in found]
    assert (kinds.count(Claim), kinds.count(Wait)) == (1, 11)


def test_a_dead_senders_lease_ends(database: Database, message_id: str) -> None:
    assert isinstance(claim(database, message_id, lease=0), Claim)
    second = claim(database, message_id)
    assert isinstance(second, Claim)
    assert (second.attempts, second.in_doubt) == (2, True)


def test_a_repetition_of_a_failed_attempt_is_dropped(database: Database, message_id: str) -> None:
    first = claim(database, message_id)
    with database.transaction() as connection:
        outbound.release(connection, first, "500", in_doubt=False, not_before=now())
    assert claim(database, message_id, 0) == Nothing("repeated")
    second = claim(database, message_id, 1)
    assert isinstance(second, Claim) and not second.in_doubt
    assert second.tried_at == first.tried_at


def test_the_provider_is_left_alone_as_long_as_it_asked(
    database: Database, message_id: str
) -> None:
    first = claim(database, message_id)
    later = now() + timedelta(seconds=100)
    with database.transaction() as connection:
        outbound.release(connection, first, "429", in_doubt=False, not_before=later)
    found = claim(database, message_id, 1)
    assert isinstance(found, Wait) and 90 < found.seconds <= 100


def test_who_lost_the_lease_cannot_fail_or_release(database: Database, message_id: str) -> None:
    first = claim(database, message_id, lease=0)
    assert isinstance(claim(database, message_id), Claim)
    with database.transaction() as connection:
        outbound.settle_failed(connection, first, "too late")
        outbound.release(connection, first, "too late", in_doubt=False, not_before=now())
    found = row(database, message_id)
    assert (found.state, found.error) == ("queued", None)
    assert found.lease_until > now()
    with database.transaction() as connection:
        outbound.settle_sent(connection, first, "ref")  # but what is sent is sent
    assert row(database, message_id).state == "sent"
    assert claim(database, message_id, 2) == Nothing("sent")


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["sent"], "sent"),
        (["failed", "sent"], "failed"),
        (["delivered", "sent"], "delivered"),
        (["delivered", "failed"], "delivered"),
        (["failed", "delivered"], "failed"),
        (["sent", "queued", "delivered", "sent", "queued"], "delivered"),
    ],
)
def test_a_state_only_moves_forward(
    states: list[str], expected: str, database: Database, message_id: str
) -> None:
    for state in states:
        apply(database, receipt(state, message_id))
    found = row(database, message_id)
    assert found.state == expected
    assert [one["status"] for one in found.receipts] == list(dict.fromkeys(states))
    assert found.credits_cost == Decimal("2.50")
    assert claim(database, message_id) == Nothing(expected)


def test_a_receipt_may_come_before_the_answer(database: Database, message_id: str) -> None:
    held = claim(database, message_id)
    assert apply(database, receipt("delivered", message_id, provider_ref="SM1")) == "delivered"
    with database.transaction() as connection:
        outbound.settle_sent(connection, held, "SM1")
    found = row(database, message_id)
    assert (found.state, found.provider_ref, found.lease_until) == ("delivered", "SM1", None)


def test_receipts_find_a_message_by_the_providers_id(database: Database, message_id: str) -> None:
    assert apply(database, receipt("sent", None, provider_ref="SM1")) is None
    held = claim(database, message_id)
    with database.transaction() as connection:
        outbound.settle_sent(connection, held, "SM1")
        known = outbound.known_refs(connection, "chikka", "+639181234567")
    assert apply(database, receipt("delivered", None, provider_ref="SM1")) == "delivered"
    assert known == {"SM1"}
    assert apply(database, receipt("sent", "unknown")) is None


def test_who_has_unsubscribed_gets_no_broadcast(database: Database, message_id: str) -> None:
    with database.transaction() as connection:
        created = {"id": "b", "keyword": "bord", "message": "News", "created_at": now()}
        insert_new(connection, broadcast, created)
        query = update(outbound_message).where(outbound_message.c.message_id == message_id)
        connection.execute(query.values(broadcast_id="b", inbound_id=None))
        connection.execute(update(subscription).values(ended_at=now()))
    assert claim(database, message_id) == Nothing("unsubscribed")
    found = row(database, message_id)
    assert (found.state, found.error) == ("failed", "unsubscribed before it was sent")


def test_times_are_aware_and_in_utc(database: Database, message_id: str) -> None:
    found = row(database, message_id).queued_at
    assert found.tzinfo is timezone.utc
    assert abs(found - datetime.now(timezone.utc)) < timedelta(seconds=60)


def test_tables_are_made_once_by_many(database: Database) -> None:
    others = [Database(database.engine.url.render_as_string(hide_password=False)) for _ in "1234"]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda other: other.create_tables(), others))
    for other in others:
        other.close()
