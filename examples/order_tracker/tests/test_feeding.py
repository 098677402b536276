"""The rules on limit and transitions, on both databases, without a broker."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from order_tracker.backlog import NewUnit, add_units, retry_unit
from order_tracker.database import Database, utc_now
from order_tracker.feeding import Feeding, is_sweep_due, lock_feed, mark_sent, sweep, top_up
from order_tracker.reading import summary
from order_tracker.reports import Applied, Report, apply_report
from order_tracker.tables import feed, order_transitions
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

LIMIT = 5


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/orders.sqlite3"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A database that feeds five at a time."""
    made = Database(url)
    made.create_tables(LIMIT, 60)
    with made.write() as connection:
        connection.execute(update(feed).values(going=True))
    yield made
    made.close()


def fill(database: Database, units: int, priorities: tuple[int, ...] = (0,)) -> list[Feeding]:
    """Add units, and give them their places."""
    with database.write() as connection:
        state = lock_feed(connection)
        new = [NewUnit(priorities[n % len(priorities)]) for n in range(units)]
        add_units(connection, new, utc_now(), "test")
        return top_up(connection, state, utc_now(), "test")


def tell(database: Database, order_id: int, status: str, attempt: int = 1) -> Applied:
    """Apply one report."""
    report = Report(order_id, attempt, status, f"agent-{status}", "task")
    with database.write() as connection:
        return apply_report(connection, report, utc_now(), "inbox")


def swept(database: Database, now: datetime) -> list[Feeding]:
    """Sweep at another time than now."""
    with database.read() as connection:
        is_due = is_sweep_due(connection, now)
    with database.write() as connection:
        found = sweep(connection, now, "sweeper")
    assert is_due == bool(found)
    return found


def ways(database: Database) -> dict[int, list[str]]:
    """The statuses that each unit went through."""
    with database.read() as connection:
        query = select(order_transitions).order_by(order_transitions.c.id)
        found: dict[int, list[str]] = {}
        for row in connection.execute(query):
            found.setdefault(row.order_id, []).append(row.to_status)
        return found


def test_the_oldest_of_the_highest_priority_go_first(database: Database) -> None:
    assert [one.order_id for one in fill(database, 9, (0, 5, -1))] == [2, 5, 8, 1, 4]


def test_a_place_that_is_freed_is_given_away_in_the_same_transaction(database: Database) -> None:
    assert len(fill(database, 7)) == LIMIT
    assert tell(database, 1, "processing").feedings == []
    done = tell(database, 1, "success")
    assert [one.order_id for one in done.feedings] == [6]
    assert [one.order_id for one in tell(database, 2, "error").feedings] == [7]
    assert tell(database, 3, "success").feedings == []
    assert ways(database)[2] == ["pending", "queued", "processing", "error"]


def test_nothing_is_fed_while_it_is_stopped(database: Database) -> None:
    fill(database, 7)
    with database.write() as connection:
        connection.execute(update(feed).values(going=False))
    assert tell(database, 1, "success").feedings == []
    with database.read() as connection:
        assert summary(connection).in_flight == LIMIT - 1


def test_reports_in_any_order_and_number_give_one_way(database: Database) -> None:
    reports = ["queued", "processing", "success", "error"]
    orders = list(itertools.permutations(reports))
    with database.write() as connection:
        connection.execute(update(feed).values(max_queue=len(orders)))
    fill(database, len(orders))
    for order_id, order in enumerate(orders, 1):
        for status in (*order, *order):  # each twice
            tell(database, order_id, status)
    for order_id, order in enumerate(orders, 1):
        end = min("success", "error", key=order.index)  # the first of the two counts
        assert ways(database)[order_id] == ["pending", "queued", "processing", end]


def test_reports_on_units_that_were_not_fed_change_nothing(database: Database) -> None:
    fill(database, LIMIT + 1)
    for status in ("queued", "processing", "success", "error"):
        assert tell(database, LIMIT + 1, status) == Applied([], [])
        assert tell(database, 4711, status) == Applied([], [])
        assert tell(database, 1, status, attempt=2) == Applied([], [])
    assert ways(database)[LIMIT + 1] == ["pending"]


def test_a_retry_is_recorded_and_makes_old_reports_void(database: Database) -> None:
    fill(database, 1)
    tell(database, 1, "error")

    def retry() -> tuple[str | None, list[Feeding]]:
        with database.write() as connection:
            state = lock_feed(connection)
            found = retry_unit(connection, 1, utc_now(), "api")
            return found, top_up(connection, state, utc_now(), "api")

    found, fed = retry()
    assert found == "error"
    assert [one.attempt for one in fed] == [2]
    assert retry() == ("queued", [])
    assert tell(database, 1, "success", attempt=1) == Applied([], [])
    tell(database, 1, "success", attempt=2)
    assert retry() == ("success", [])
    way = ["pending", "queued", "processing", "error", "pending", "queued", "processing", "success"]
    assert ways(database)[1] == way


def test_an_error_may_say_anything(database: Database) -> None:
    fill(database, 1)
    report = Report(1, 1, "error", "agent", "task", "NUL \0, half a pair \ud800, " + "long " * 500)
    with database.write() as connection:
        apply_report(connection, report, utc_now(), "inbox")
        found = connection.execute(select(order_transitions.c.detail)).scalars().all()
    assert str(found[-1]).startswith("NUL ?, half a pair ?, long long")
    assert len(str(found[-1])) == 500


def test_the_database_refuses_a_second_success(database: Database) -> None:
    fill(database, 1)
    tell(database, 1, "success")
    with pytest.raises(IntegrityError), database.write() as connection:
        row: dict[str, Any] = {"order_id": 1, "attempt": 1, "to_status": "success"}
        connection.execute(insert(order_transitions).values(**row, at=utc_now(), worker="somebody"))


def test_what_a_dead_publisher_left_is_sent_once_more(database: Database) -> None:
    fed = fill(database, 3)
    with database.write() as connection:
        mark_sent(connection, [fed[0].task_id], utc_now())
    assert swept(database, utc_now()) == []
    later = utc_now() + timedelta(seconds=10)
    again = swept(database, later)
    assert [one.task_id for one in again] == [fed[1].task_id, fed[2].task_id]
    assert again[0].expires > fed[1].expires
    assert swept(database, later) == []  # another sweeper leaves them alone


def test_what_has_moved_on_is_not_sent_again(database: Database) -> None:
    fill(database, 2)
    tell(database, 1, "processing")
    with database.write() as connection:
        found = sweep(connection, utc_now() + timedelta(seconds=10), "sweeper")
    assert [one.order_id for one in found] == [2]


def test_a_stalled_unit_is_fed_again_under_a_new_id(database: Database) -> None:
    fed = fill(database, 2)
    with database.write() as connection:
        mark_sent(connection, [one.task_id for one in fed], utc_now())
    tell(database, 1, "processing")
    assert swept(database, utc_now() + timedelta(seconds=59)) == []
    later = utc_now() + timedelta(seconds=61)
    again = swept(database, later)
    assert [one.order_id for one in again] == [1, 2]
    assert not {one.task_id for one in again} & {one.task_id for one in fed}
    # The older message must not be begun with any more.
    assert all(one.expires <= later for one in fed)
    assert swept(database, later) == []
    assert ways(database)[1] == ["pending", "queued", "processing"]


def test_of_a_stalled_unit_only_the_newest_message_is_sent(database: Database) -> None:
    fill(database, 1)
    with database.write() as connection:
        connection.execute(update(feed).values(stall_timeout=1))
    stalled = swept(database, utc_now() + timedelta(seconds=2))
    later = utc_now() + timedelta(seconds=60)
    assert [one.task_id for one in swept(database, later)] == [stalled[0].task_id]


def test_the_limit_holds_for_many_writers_at_once(url: str, database: Database) -> None:
    units = 120
    fill(database, units)
    failed: list[BaseException] = []
    deadline = time.monotonic() + 30

    def work(offset: int) -> None:
        own = Database(url)
        try:
            for order_id in range(1 + offset, units + 1, 2):
                for status in ("processing", "success"):
                    while not tell(own, order_id, status).steps:
                        assert time.monotonic() < deadline, "no place for it"
                with own.write() as connection:
                    sweep(connection, utc_now(), "sweeper")
        except BaseException as error:
            failed.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for one in threads:
        one.start()
    samples = 0
    while any(one.is_alive() for one in threads):
        with database.read() as connection:
            found = summary(connection)
        assert found.in_flight == min(LIMIT, found.total - found.done)
        samples += 1
    assert not failed
    assert samples > 10
    assert all(
        way == ["pending", "queued", "processing", "success"] for way in ways(database).values()
    )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 has no setlimit")
def test_a_limit_beyond_the_variables_of_a_statement(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/orders.sqlite3")
    units, variables = 2500, 1100  # SQLite's own bound is 32,766; a limit may be 100,000
    database.create_tables(units, 60)
    fill(database, units)
    with database.write() as connection:
        connection.execute(update(feed).values(going=True))
        driver: Any = connection.connection.dbapi_connection
        driver.setlimit(9, variables)  # SQLITE_LIMIT_VARIABLE_NUMBER
        assert len(top_up(connection, lock_feed(connection), utc_now(), "test")) == units
        assert summary(connection).in_flight == units
    database.close()
