"""What a :class:`Query` finds, counts and goes through, and what a reader leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any

import pytest
from sqlalchemy import event, inspect, text

from cadasta.workertoolbox import Query
from cadasta.workertoolbox.errors import LedgerError
from cadasta.workertoolbox.ledger.ledger import NO_RESULTS, Ledger
from cadasta.workertoolbox.messages.decoding import TaskRecord
from cadasta.workertoolbox.sql import migrations
from cadasta.workertoolbox.sql.engines import make_engine
from tests.ledger_contract.helpers import NOW, SECOND, LedgerFixture, add_result, record


@contextmanager
def statements(ledger: Ledger) -> Iterator[list[str]]:
    """Collect what a ledger executes."""
    executed: list[str] = []

    def execute(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        executed.append(statement)

    event.listen(ledger._engine, "before_cursor_execute", execute)
    yield executed
    event.remove(ledger._engine, "before_cursor_execute", execute)


def only_reads(statement: str) -> bool:
    # A plain BEGIN: on SQLite, a write would be BEGIN IMMEDIATE.
    words = ("SELECT", "SHOW", "DESCRIBE", "PRAGMA MAIN.TABLE_", "PRAGMA TEMP.TABLE_", "SET LOCAL")
    return statement == "BEGIN" or statement.strip().upper().startswith(words)


class Asking(LedgerFixture):
    @pytest.fixture
    def dozen(self, ledger: Ledger) -> Ledger:
        """Twelve tasks, a second apart, of two names and three queues; every second has ended."""
        ledger.record(
            record(
                f"{number:02}",
                name="export.pdf" if number % 2 == 0 else "mail",
                queue=f"q{number % 3}",
                headers={"tenant": number % 2},
                parent_id="00" if number else None,
                root_id="00",
                published_at=NOW + number * SECOND,
            )
            for number in range(12)
        )
        for number in range(0, 12, 2):
            add_result(ledger, f"{number:02}", "SUCCESS" if number < 8 else "FAILURE")
        return ledger

    @pytest.mark.parametrize(
        ("conditions", "expected"),
        [
            ({}, range(12)),
            ({"states": "FAILURE"}, [8, 10]),
            ({"states": "SUCCESS"}, [0, 2, 4, 6]),
            ({"states": "PENDING"}, [1, 3, 5, 7, 9, 11]),
            ({"states": ["FAILURE", "PENDING"]}, [1, 3, 5, 7, 8, 9, 10, 11]),
            ({"states": ["SUCCESS", "FAILURE"], "queues": "q2"}, [2, 8]),
            ({"states": "REVOKED"}, []),
            ({"names": "mail"}, [1, 3, 5, 7, 9, 11]),
            ({"names": ["m*l", "export.pdf"]}, range(12)),
            ({"names": ["export.*", "nothing"], "queues": ["q0", "q1"]}, [0, 4, 6, 10]),
            ({"root_id": "00"}, range(12)),
            ({"parent_id": "00", "names": "export.pdf"}, [2, 4, 6, 8, 10]),
            ({"since": NOW + 3 * SECOND, "until": NOW + 5 * SECOND}, [3, 4]),
            ({"headers": {"tenant": 1}, "queues": "q0"}, [3, 9]),
            ({"unfinished_for": timedelta(hours=1)}, [1, 3, 5, 7, 9, 11]),
            ({"unfinished_for": timedelta(hours=1), "states": "FAILURE"}, []),
            ({"unfinished_for": timedelta(hours=1), "queues": "q0", "states": "PENDING"}, [3, 9]),
        ],
        ids=repr,
    )
    def test_a_query_finds_counts_and_goes_through_the_same(
        self, dozen: Ledger, conditions: dict[str, Any], expected: Any
    ) -> None:
        query = Query(**conditions)
        wanted = [f"{number:02}" for number in sorted(expected, reverse=True)]
        assert [one.task_id for one in dozen.find(query)] == wanted
        assert dozen.count(query) == len(wanted)
        for batch in (1, 3, 12):
            assert [one.task_id for one in dozen.iterate(query, batch=batch)] == wanted
        first = dozen.find(query, limit=2)
        assert [one.task_id for one in first] == wanted[:2]
        if first.next:
            second = dozen.find(query, limit=10, after=first.next)
            assert [one.task_id for one in second] == wanted[2:]

    def test_what_is_published_meanwhile_is_not_gone_through(self, dozen: Ledger) -> None:
        tasks = dozen.iterate(Query(names="mail"), batch=2)
        begun = [one.task_id for one in islice(tasks, 3)]
        dozen.record([record("new", name="mail", published_at=NOW + 99 * SECOND)])
        dozen.record([record("01", name="mail", retries=1, published_at=NOW + 99 * SECOND)])
        assert begun + [one.task_id for one in tasks] == ["11", "09", "07", "05", "03", "01"]

    def test_a_query_that_takes_results_which_are_elsewhere(self, url: str) -> None:
        with Ledger(url, NO_RESULTS) as ledger:
            ledger.record([record("a"), record("b", queue="q")])
            assert ledger.count(Query()) == 2
            assert [one.task_id for one in ledger.iterate(Query(queues="q"))] == ["b"]
            asks: list[Any] = [ledger.find, ledger.count, lambda query: next(ledger.iterate(query))]
            for query in (Query(states="SUCCESS"), Query(unfinished_for=timedelta(hours=1))):
                for ask in asks:
                    with pytest.raises(LedgerError, match="in no SQL database"):
                        ask(query)

    def test_tasks_that_wait_are_counted_as_they_are_found(self, ledger: Ledger) -> None:
        now = datetime.now(timezone.utc)
        hour = timedelta(hours=1)
        ledger.record(
            [
                record("lost", published_at=now - 3 * hour),
                record("waits", published_at=now - 3 * hour, eta=now + hour),
                record("expired", published_at=now - 3 * hour, expires=now - hour),
                record("untold", published_at=now - 3 * hour, ignore_result=True),
            ]
        )
        query = Query(unfinished_for=2 * hour)
        assert ledger.count(query) == len(ledger.find(query)) == len(ledger.unfinished(2 * hour))
        assert [one.task_id for one in ledger.iterate(query)] == ["lost"]

    # -- a reader that changes no table --------------------------------------------------------

    def test_a_reader_makes_no_tables(self, url: str) -> None:
        with Ledger(url, upgrade=False) as reader, statements(reader) as executed:
            for ask in self.questions(reader):
                with pytest.raises(LedgerError, match=r"missing.*`celery -A proj ledger upgrade`"):
                    ask()
            assert [one for one in executed if not only_reads(one)] == []
        engine = make_engine(url)
        assert inspect(engine).get_table_names() == []
        engine.dispose()

    def test_a_reader_refuses_older_tables(self, ledger: Ledger, url: str) -> None:
        ledger.upgrade()
        version = text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '0001_tables'")
        with ledger._engine.begin() as connection:
            connection.execute(version)
        with Ledger(url, upgrade=False) as reader, statements(reader) as executed:
            for ask in self.questions(reader):
                with pytest.raises(LedgerError, match=r"at version 0001_tables, older.*upgrade`"):
                    ask()
            assert [one for one in executed if not only_reads(one)] == []
        assert migrations.current(ledger._engine) == "0001_tables"

    def test_a_reader_reads_without_a_change(self, dozen: Ledger, url: str) -> None:
        with Ledger(url, upgrade=False) as reader, statements(reader) as executed:
            for ask in self.questions(reader):
                ask()
            assert reader.count(Query()) == 12
            assert [one for one in executed if not only_reads(one)] == []
            with pytest.raises(LedgerError, match="is not an age"):
                reader.unfinished(5)  # type: ignore[arg-type]

    def test_a_reader_upgrades_when_it_is_told_to(self, url: str) -> None:
        with Ledger(url, upgrade=False) as reader:
            with pytest.raises(LedgerError, match="missing"):
                reader.record([TaskRecord(task_id="a", name="a")])
            assert reader.upgrade()[-1] == migrations.HEAD
            assert reader.count(Query()) == 0

    @staticmethod
    def questions(ledger: Ledger) -> list[Any]:
        """All that a ledger can be asked."""
        return [
            lambda: ledger.get("00"),
            lambda: ledger.attempts("00"),
            lambda: ledger.find(state="FAILURE"),
            lambda: ledger.find(Query(names="mail")),
            lambda: ledger.count(Query(states="PENDING")),
            lambda: list(ledger.iterate(Query(), batch=5)),
            lambda: ledger.unfinished(timedelta(hours=1)),
            lambda: ledger.workflow("00"),
            ledger.summary,
        ]
