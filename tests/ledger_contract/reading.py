"""What the ledger answers: tasks with their outcome, pages, workflows, summaries."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery

from cadasta.workertoolbox.errors import LedgerError
from cadasta.workertoolbox.ledger.ledger import Ledger
from cadasta.workertoolbox.sql.engines import make_engine
from tests.ledger_contract.helpers import LONG, NOW, SECOND, LedgerFixture, add_result, record


class Reading(LedgerFixture):
    def test_a_result_without_a_task_is_none(self, ledger: Ledger) -> None:
        ledger.upgrade()
        add_result(ledger, "alone", "SUCCESS", result=b"1")
        assert ledger.get("alone") is None
        assert ledger.get("nobody") is None
        assert len(ledger.find()) == 0

    def test_what_celery_stores_is_read(self, ledger: Ledger, url: str) -> None:
        ledger.record(record(key) for key in ("ok", "failed", "started", "retry", "same", "date"))
        app = Celery("app", backend="db+" + url, set_as_current=False)
        app.conf.update(result_extended=True, database_create_tables_at_setup=False)
        backend = app.backend
        value = {"x": [1, None, "ü"], "exc_type": "no", "exc_message": []}
        backend.store_result("ok", value, "SUCCESS")
        backend.store_result("failed", ValueError("no such", 5), "FAILURE", traceback="Trace…")
        backend.store_result("started", {"pid": 5}, "STARTED")
        backend.store_result("retry", KeyError(), "RETRY")
        backend.store_result("date", datetime(2024, 1, 2), "SUCCESS")
        assert app.AsyncResult("ok").get() == value
        found = {one.task_id: one for one in ledger.find()}
        assert {key: one.state for key, one in found.items()} == {
            "ok": "SUCCESS",
            "failed": "FAILURE",
            "started": "STARTED",
            "retry": "RETRY",
            "date": "SUCCESS",
            "same": "PENDING",
        }
        assert found["ok"].result == value
        assert found["failed"].result == "ValueError: no such, 5"
        assert found["failed"].traceback == "Trace…"
        assert found["retry"].result == "KeyError"
        assert found["date"].result == datetime(2024, 1, 2)
        assert found["same"].result is None and not found["same"].is_final
        done = found["ok"].date_done
        assert done is not None and done.tzinfo is timezone.utc
        assert abs(done - datetime.now(timezone.utc)) < timedelta(minutes=1)
        assert (found["ok"].date_started, found["ok"].waited, found["ok"].ran) == (None, None, None)

    def test_a_result_that_is_not_json_is_not_touched(self, ledger: Ledger) -> None:
        ledger.record([record("pickled"), record("text")])
        add_result(ledger, "pickled", "SUCCESS", result=b"\x80\x04\x95cposix\nsystem\n")
        add_result(ledger, "text", "FAILURE", result=b"plain {")
        pickled, text = ledger.get("pickled"), ledger.get("text")
        assert pickled is not None and text is not None
        assert pickled.result == "<17 bytes that are not JSON>"
        assert text.result == "plain {"

    def test_find_by_state(self, ledger: Ledger) -> None:
        ledger.record(
            record(key, published_at=NOW + number * SECOND)
            for number, key in enumerate(["s1", "f1", "p1", "s2", "r1", "x1", "p2"])
        )
        for key, state in {"s": "SUCCESS", "f": "FAILURE", "r": "STARTED", "x": "PENDING"}.items():
            add_result(ledger, key + "1", state)
        add_result(ledger, "s2", "SUCCESS")

        def ids(state: Any) -> list[str]:
            return [one.task_id for one in ledger.find(state=state)]

        assert ids("SUCCESS") == ["s2", "s1"]
        assert ids("FAILURE") == ["f1"]
        assert ids("PENDING") == ["p2", "x1", "p1"]
        assert ids(["FAILURE", "STARTED"]) == ["r1", "f1"]
        assert ids({"PENDING", "FAILURE"}) == ["p2", "x1", "p1", "f1"]
        assert ids(("SUCCESS", "PENDING")) == ["p2", "x1", "s2", "p1", "s1"]
        assert ids("REVOKED") == []
        assert ids("'; DROP TABLE celery_task; --") == []
        assert len(ids(None)) == len(ids([])) == 7

    def test_find_by_name_and_queue(self, ledger: Ledger) -> None:
        names = ["export.pdf", "Export.pdf", "export.pdf.a4", "exportxpdf", "ex%.pdf", "a/[b]?_\\"]
        ledger.record(record(name, name=name, queue=name[:6]) for name in names)

        def ids(name: str) -> list[str]:
            return sorted(one.task_id for one in ledger.find(name=name))

        assert ids("export.pdf") == ["export.pdf"]
        assert ids("export.*") == ["export.pdf", "export.pdf.a4"]
        assert ids("e*") == ["ex%.pdf", "export.pdf", "export.pdf.a4", "exportxpdf"]
        assert ids("ex%*") == ["ex%.pdf"]
        assert ids("*") == sorted(names)
        assert ids("*.pdf") == ["Export.pdf", "ex%.pdf", "export.pdf"]
        assert ids("e*.p*") == ["ex%.pdf", "export.pdf", "export.pdf.a4"]
        assert ids("*%*") == ["ex%.pdf"]
        assert ids("*/[b]?_\\*") == ["a/[b]?_\\"]
        assert ids("pdf") == []
        assert [one.task_id for one in ledger.find(queue="Export")] == ["Export.pdf"]

    def test_find_by_headers(self, ledger: Ledger) -> None:
        headers: dict[str, dict[str, Any] | None] = {
            "five": {"tenant": 5, "who": {"name": "Eva", "roles": ["a", "b"]}, "on": True},
            "text": {"tenant": "5", 'quo"te': "it's", "none": None},
            "one": {"on": 1, "tenant": 50},
            "list": {"on": [1, True], "who": {"name": ["Eva"], "roles": [["b"]]}},
            "next": {"tenant": 2**60, "who": "é"},
            "neighbour": {"tenant": 2**60 + 1},
            "none": None,
        }
        ledger.record(record(key, headers=value) for key, value in headers.items())

        def ids(**wanted: Any) -> list[str]:
            return sorted(one.task_id for one in ledger.find(headers=wanted))

        assert ids(tenant=5) == ["five"]
        assert ids(tenant="5") == ["text"]
        assert ids(**{'quo"te': "it's"}) == ["text"]
        assert ids(none=None) == ["text"]
        assert ids(on=True) == ["five"]
        assert ids(on=1) == ["one"]
        assert ids(who={"name": "Eva"}) == ["five"]
        assert ids(who={"roles": ["b"]}, tenant=5) == ["five"]
        assert ids(who={"roles": ["c"]}) == []
        assert ids(on=[1]) == ["list"]
        assert ids(tenant=5, on=False) == []
        assert ids(tenant=2**60) == ["next"]
        assert ids(tenant=2**60 + 1) == ["neighbour"]
        assert ids(tenant=2**60, who="é") == ["next"]
        assert ids() == ["five", "list", "neighbour", "next", "none", "one", "text"]

    def test_pages_are_stable(self, ledger: Ledger) -> None:
        # Ten a moment, so that the id has to decide within a page and between pages.
        ledger.record(
            record(f"{number:03}", published_at=NOW + (number // 10) * SECOND)
            for number in range(95)
        )
        seen: list[str] = []
        after: str | None = None
        while True:
            page = ledger.find(limit=7, after=after)
            seen += [one.task_id for one in page]
            # Newer ones, and a retry, do not move what is still to come.
            ledger.record([record(f"new {len(seen)}", published_at=NOW + LONG)])
            ledger.record([record("000", retries=len(seen), published_at=NOW + LONG)])
            after = page.next
            if after is None:
                break
            assert len(page) == 7 and len(after) < 80
        expected = sorted(range(95), key=lambda number: (number // 10, number), reverse=True)
        assert seen == [f"{number:03}" for number in expected]
        assert ledger.find(limit=1).tasks[0].task_id.startswith("new")

    def test_find_combines_conditions(self, ledger: Ledger) -> None:
        for number in range(12):
            ledger.record(
                [
                    record(
                        f"{number:02}",
                        name="even" if number % 2 == 0 else "odd",
                        queue=f"q{number % 3}",
                        headers={"tenant": number % 2},
                        published_at=NOW + number * SECOND,
                    )
                ]
            )
            add_result(ledger, f"{number:02}", "SUCCESS" if number < 9 else "FAILURE")
        page = ledger.find(
            state="SUCCESS",
            name="even",
            queue="q0",
            headers={"tenant": 0},
            since=NOW + SECOND,
            until=NOW + 11 * SECOND,
        )
        assert [one.task_id for one in page] == ["06"]
        first = ledger.find(state=["SUCCESS", "FAILURE"], name="odd", limit=2)
        second = ledger.find(state=["SUCCESS", "FAILURE"], name="odd", limit=2, after=first.next)
        assert [one.task_id for one in (*first, *second)] == ["11", "09", "07", "05"]

    def test_workflow(self, ledger: Ledger) -> None:
        ledger.record(
            [
                record("root", root_id="root"),
                record("b", root_id="root", parent_id="root", published_at=NOW + 2 * SECOND),
                record("a", root_id="root", parent_id="root", published_at=NOW + 3 * SECOND),
                record(
                    "c",
                    root_id="root",
                    parent_id="b",
                    published_at=NOW + 4 * SECOND,
                    properties={"is_result": True},
                ),
                record("other", root_id="other"),
                record("unlock", name="celery.chord_unlock", root_id="root", parent_id="a"),
            ]
        )
        workflow = ledger.workflow("root")
        assert workflow is not None and workflow.state == "PENDING"
        for key in ("root", "b", "a", "c"):
            add_result(ledger, key, "SUCCESS", result=json.dumps(key).encode())
        add_result(ledger, "unlock", "RETRY")
        for key in ("root", "c", "unlock"):
            workflow = ledger.workflow(key)
            assert workflow is not None
            tree = [(depth, node.task.task_id) for depth, node in workflow.root.walk()]
            assert tree == [(0, "root"), (1, "b"), (2, "c"), (1, "a")]
            assert workflow.state == "SUCCESS"
            assert workflow.results == {"c": "c"}
        assert [one.task_id for one in ledger.find(root_id="root")] == [
            "c",
            "a",
            "b",
            "unlock",
            "root",
        ]
        assert ledger.workflow("nobody") is None

    def test_summary(self, ledger: Ledger) -> None:
        tasks: dict[str, list[str | None]] = {
            "a": ["SUCCESS", "SUCCESS", "SUCCESS", "FAILURE"],
            "b": ["STARTED", None],
        }
        for name, states in tasks.items():
            for number, state in enumerate(states):
                key = f"{name}{number}"
                ledger.record([record(key, name=name, published_at=NOW + number * SECOND)])
                if state is not None:
                    add_result(ledger, key, state)
        summary = ledger.summary()
        assert [(one.name, dict(one.states), one.total) for one in summary.names] == [
            ("a", {"FAILURE": 1, "SUCCESS": 3}, 4),
            ("b", {"PENDING": 1, "STARTED": 1}, 2),
        ]
        assert summary.states == {"FAILURE": 1, "SUCCESS": 3, "PENDING": 1, "STARTED": 1}
        assert summary.total == 6
        # Celery's own tables do not tell when a task started.
        assert summary.names[0].waiting.p50 is None and summary.names[0].running.p99 is None
        assert ledger.summary(since=NOW + 2 * SECOND).total == 2

    def test_summary_with_start_times(self, ledger: Ledger, url: str) -> None:
        late = {number: NOW + 100 * SECOND if number > 50 else None for number in range(1, 101)}
        ledger.record(record(f"{number}", eta=eta) for number, eta in late.items())
        engine = make_engine(url)
        with engine.begin() as connection:
            for number, eta in late.items():
                started = (eta or NOW) + number * SECOND
                connection.exec_driver_sql(
                    "INSERT INTO celery_taskmeta (id, task_id, status, date_started, runtime) "
                    f"VALUES ({number}, '{number}', 'SUCCESS', "
                    f"'{started:%Y-%m-%d %H:%M:%S.%f}', {number / 4})"
                )
        engine.dispose()
        with Ledger(url) as fresh:
            (name,) = fresh.summary().names
            assert name.waiting.p50 == pytest.approx(50, abs=0.01)
            assert name.waiting.p95 == pytest.approx(95, abs=0.01)
            assert name.waiting.p99 == pytest.approx(99, abs=0.01)
            assert (name.running.p50, name.running.p95) == (12.5, 23.75)
            one = fresh.get("60")
            assert one is not None
            assert one.date_started == NOW + 160 * SECOND
            assert (one.waited, one.ran) == (60.0, 15.0)

    def test_a_task_that_waits_for_its_retry_has_not_waited_less_than_nothing(
        self, ledger: Ledger, url: str
    ) -> None:
        again = NOW + 10 * SECOND
        ledger.record([record("a", retries=1, published_at=again, eta=NOW + 100 * SECOND)])
        ledger.record([record("b", published_at=NOW + 2 * SECOND)])  # a clock that is ahead
        engine = make_engine(url)
        with engine.begin() as connection:
            for number, (key, state) in enumerate({"a": "RETRY", "b": "STARTED"}.items()):
                connection.exec_driver_sql(
                    "INSERT INTO celery_taskmeta (id, task_id, status, date_started) VALUES "
                    f"({number}, '{key}', '{state}', '{NOW:%Y-%m-%d %H:%M:%S.%f}')"
                )
        engine.dispose()
        with Ledger(url) as fresh:
            retried, started = fresh.get("a"), fresh.get("b")
            assert retried and started
            assert (retried.waited, started.waited) == (None, 0.0)
            (name,) = fresh.summary().names
            assert (name.waiting.p50, name.waiting.p99) == (0.0, 0.0)

    def test_text_that_databases_refuse_finds_nothing(self, ledger: Ledger) -> None:
        ledger.record([record("a")])
        for text in ("a\0", "\ud800"):
            with suppress(LedgerError):
                assert ledger.get(text) is None
            with suppress(LedgerError):
                assert not ledger.find(name=text, queue=text, root_id=text)

    def test_unfinished(self, ledger: Ledger) -> None:
        now = datetime.now(timezone.utc)
        hour = timedelta(hours=1)
        ledger.record(
            [
                record("lost", published_at=now - 3 * hour),
                record("stuck", published_at=now - 4 * hour),
                record("done", published_at=now - 3 * hour),
                record("failed", published_at=now - 3 * hour),
                record("fresh", published_at=now),
                record("waits", published_at=now - 3 * hour, eta=now + hour),
                record("just due", published_at=now - 3 * hour, eta=now - hour),
                record("overdue", published_at=now - 5 * hour, eta=now - 3 * hour),
                record("retried", published_at=now - 3 * hour),
                record("retried", published_at=now, retries=1),
                record("untold", published_at=now - 3 * hour, ignore_result=True),
            ]
        )
        add_result(ledger, "stuck", "STARTED")
        add_result(ledger, "done", "SUCCESS")
        add_result(ledger, "failed", "FAILURE")
        add_result(ledger, "retried", "RETRY")
        page = ledger.unfinished(2 * hour)
        assert [one.task_id for one in page] == ["lost", "stuck", "overdue"]
        assert page.next is None
        first = ledger.unfinished(2 * hour, limit=2)
        second = ledger.unfinished(2 * hour, limit=2, after=first.next)
        assert [len(first), len(second)] == [2, 1]
        assert "just due" in [one.task_id for one in ledger.unfinished(0.5 * hour)]

    def test_what_expired_before_it_began_is_not_unfinished(self, ledger: Ledger) -> None:
        now, hour = datetime.now(timezone.utc), timedelta(hours=1)
        states = {"lost": None, "told": "PENDING", "retried": "RETRY", "begun": "STARTED"}
        states |= {"own": "PROGRESS", "revoked": "REVOKED", "still": None}
        for task_id, state in states.items():
            expires = now + hour if task_id == "still" else now - hour
            ledger.record([record(task_id, published_at=now - 3 * hour, expires=expires)])
            if state is not None:
                add_result(ledger, task_id, state)
        page = ledger.unfinished(2 * hour)
        assert sorted(one.task_id for one in page) == ["begun", "own", "still"]
        expired = {one.task_id for one in ledger.find() if one.has_expired}
        assert expired == {"lost", "told", "retried"}
        assert ledger.prune(2 * hour) == 4
        assert {one.task_id for one in ledger.find()} == {"begun", "own", "still"}
