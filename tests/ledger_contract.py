"""What the ledger does on every database: the same tests run on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import insert, select, update

from cadasta.workertoolbox import ledger_writes
from cadasta.workertoolbox.database import make_engine
from cadasta.workertoolbox.errors import LedgerError
from cadasta.workertoolbox.ledger import NO_RESULTS, Ledger, Undecodable
from cadasta.workertoolbox.messages import TaskRecord
from cadasta.workertoolbox.schema import task, taskmeta, undecodable

NOW = datetime(2024, 5, 17, 12, 30, 15, 123456, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)
#: Everything published at ``NOW`` is older than this.
LONG = timedelta(days=1)


def record(task_id: str, **fields: Any) -> TaskRecord:
    """Return a record of a task published at ``NOW``."""
    return TaskRecord(**{"name": "export.pdf", "published_at": NOW, "task_id": task_id, **fields})


def add_result(ledger: Ledger, task_id: str, state: str, **columns: Any) -> None:
    """Write a row of the result table, as Celery would."""
    row = {"task_id": task_id, "status": state, "date_done": NOW.replace(tzinfo=None), **columns}
    engine = make_engine(ledger._engine.url.render_as_string(hide_password=False))
    with engine.begin() as connection:
        connection.execute(insert(taskmeta).values(row))
    engine.dispose()


def rows(ledger: Ledger, table: Any = task) -> list[Any]:
    """Return a table's rows by its first column."""
    with ledger._engine.connect() as connection:
        return list(connection.execute(select(table).order_by(next(iter(table.c)))))


class LedgerContract:
    """The tests; a subclass has the fixture ``url``, of an empty database."""

    @pytest.fixture
    def ledger(self, url: str) -> Iterator[Ledger]:
        with Ledger(url) as ledger:
            yield ledger

    # -- recording ----------------------------------------------------------------------------

    def test_every_field_comes_back(self, ledger: Ledger) -> None:
        full = TaskRecord(
            task_id="5b0ab0a4-ï",
            name="exporté.pdf",
            queue="export.pdf",
            root_id="root",
            parent_id="parent",
            group_id="group",
            args='["a\\u0000b", {"x": 1.5}, "\\ud83d\\ude00"]',
            kwargs='{"when": {"__type__": "datetime", "__value__": "2024-01-02T03:04:05"}}',
            args_repr="('a\"b\\\\', {x})",
            kwargs_repr="{'when': ...}",
            args_truncated=False,
            eta=NOW + SECOND,
            expires=NOW.astimezone(timezone(timedelta(hours=5, minutes=45))) + 2 * SECOND,
            retries=3,
            replacements=2,
            origin="gen1@höst",
            priority=7,
            time_limit=30.5,
            soft_time_limit=20,
            stamps={"stamp": ["a", "b"]},
            headers={"tenant": 5, "who": "Ünï", "nested": {"deep": [1, None, True]}},
            properties={"is_result": True},
            published_at=NOW,
        )
        before = datetime.now(timezone.utc)
        ledger.record([full])
        found = ledger.get("5b0ab0a4-ï")
        assert found is not None
        expected = {
            **{name: getattr(full, name) for name in full.__slots__},
            "args": ["a\0b", {"x": 1.5}, "😀"],
            "kwargs": {"when": datetime(2024, 1, 2, 3, 4, 5)},
            "expires": NOW + 2 * SECOND,
            "publications": 1,
            "last_published_at": NOW,
            "state": "PENDING",
            "result": None,
        }
        assert {name: getattr(found, name) for name in expected} == expected
        assert found.published_at.tzinfo is timezone.utc
        assert found.expires is not None and found.expires.tzinfo is timezone.utc
        assert before <= found.recorded_at <= datetime.now(timezone.utc)
        assert found.due_at == NOW + SECOND

    def test_a_bare_record(self, ledger: Ledger) -> None:
        ledger.record([TaskRecord(task_id="a", name="n")])
        found = ledger.get("a")
        assert found is not None
        assert (found.args, found.kwargs, found.queue, found.eta) == (None, None, None, None)
        assert (found.headers, found.stamps, found.properties) == ({}, {}, {})
        assert found.published_at == found.recorded_at

    def test_a_whole_second_keeps_its_place(self, ledger: Ledger) -> None:
        whole = NOW.replace(microsecond=0)
        moments = {"b": whole, "a": whole - timedelta(microseconds=1), "c": whole + 0.5 * SECOND}
        ledger.record([record(key, published_at=moment) for key, moment in moments.items()])
        assert [one.task_id for one in ledger.find()] == ["c", "b", "a"]
        assert [one.published_at for one in ledger.find(since=whole)] == [moments["c"], whole]
        assert [one.task_id for one in ledger.find(until=whole)] == ["a"]

    def test_the_same_again_only_counts(self, ledger: Ledger) -> None:
        ledger.record([record("a", args="[1]")])
        (first,) = rows(ledger)
        ledger.record([record("a", args="[1]")])
        (second,) = rows(ledger)
        assert second.publications == 2
        assert {**second._mapping, "publications": 1} == dict(first._mapping)

    def test_a_retry_replaces_and_what_is_older_does_not(self, ledger: Ledger) -> None:
        ledger.record([record("a", retries=1, queue="new", published_at=NOW + SECOND)])
        ledger.record([record("a", queue="old", headers={"late": 1})])
        found = ledger.get("a")
        assert found is not None
        assert (found.queue, found.retries, found.headers, found.publications) == ("new", 1, {}, 2)
        assert (found.published_at, found.last_published_at) == (NOW, NOW + SECOND)
        ledger.record([record("a", retries=2, queue="newest", published_at=NOW + 2 * SECOND)])
        found = ledger.get("a")
        assert found is not None
        assert (found.queue, found.retries, found.publications) == ("newest", 2, 3)
        assert (found.published_at, found.last_published_at) == (NOW, NOW + 2 * SECOND)

    @pytest.mark.parametrize("together", [True, False])
    @pytest.mark.parametrize("backwards", [True, False])
    def test_order_is_by_replacements_then_retries_then_time(
        self, ledger: Ledger, together: bool, backwards: bool
    ) -> None:
        publications = [
            record("a", name="first", retries=0, published_at=NOW + 5 * SECOND),
            record("a", name="again", retries=0, published_at=NOW + 6 * SECOND),
            record("a", name="retried", retries=4, published_at=NOW + 3 * SECOND),
            record("a", name="replaced", replacements=1, published_at=NOW + 1 * SECOND),
            record("a", name="last", replacements=1, retries=1, published_at=NOW + 2 * SECOND),
        ]
        if backwards:
            publications.reverse()
        for batch in [publications] if together else [[one] for one in publications]:
            ledger.record(batch)
        found = ledger.get("a")
        assert found is not None
        assert (found.name, found.replacements, found.retries) == ("last", 1, 1)
        assert (found.published_at, found.last_published_at) == (NOW + SECOND, NOW + 2 * SECOND)
        assert found.publications == 5

    def test_a_large_batch_and_an_empty_one(self, ledger: Ledger) -> None:
        ledger.record([])
        ledger.record(record(f"{number:04}", args=f"[{number}]") for number in range(1200))
        found = ledger.find(limit=2000)
        assert sorted(one.task_id for one in found) == [f"{number:04}" for number in range(1200)]
        assert all(one.args == [int(one.task_id)] for one in found)

    def test_a_batch_with_large_arguments_is_cut(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ledger_writes, "MAX_STATEMENT", 1000)
        text = json.dumps(["x" * 400])
        ledger.record(record(f"{n}", args=text if n % 2 else None) for n in range(9))
        ledger.record([record("huge", args=json.dumps(["y" * 70_000]))])
        assert len(ledger.find()) == 10
        huge = ledger.get("huge")
        assert huge is not None and huge.args == ["y" * 70_000]

    def test_awkward_text(self, ledger: Ledger) -> None:
        awkward = "a\\b\"c'd{e},f\tg\nh%s%(x)s\x1f\x7f 😀 NULL"
        ledger.record(
            [
                record("a", queue=awkward, args_repr=awkward, headers={awkward: awkward}),
                record("b", queue="NULL", args_repr="", headers={"NULL": "\\u0000"}),
            ]
        )
        first, second = ledger.get("a"), ledger.get("b")
        assert first is not None and second is not None
        assert (first.queue, first.args_repr) == (awkward, awkward)
        assert first.headers == {awkward: awkward}
        assert (second.queue, second.args_repr) == ("NULL", "")
        assert second.headers == {"NULL": "\\u0000"}

    def test_what_databases_refuse_is_made_harmless(self, ledger: Ledger) -> None:
        bad = "nul \0, surrogate \ud800"
        ledger.record(
            [
                record("good"),
                record(
                    "bad",
                    name="n\0" + "x" * 300,
                    queue="q" * 300,
                    origin=bad,
                    args_repr=bad,
                    headers={bad: [bad, float("nan"), {1, 2}], "when": NOW},
                    properties={"deep": {"inf": float("inf")}},
                    stamps={"object": object},
                    time_limit=float("inf"),
                    soft_time_limit=float("nan"),
                ),
            ]
        )
        found = ledger.get("bad")
        assert found is not None
        assert found.name == "n\ufffd" + "x" * 253
        assert found.queue == "q" * 255
        assert found.origin == found.args_repr == "nul \ufffd, surrogate ?"
        assert found.headers == {
            "nul \ufffd, surrogate ?": ["nul \ufffd, surrogate ?", None, [1, 2]],
            "when": "2024-05-17 12:30:15.123456+00:00",
        }
        assert found.properties == {"deep": {"inf": None}}
        assert found.time_limit is None and found.soft_time_limit is None
        assert rows(ledger, undecodable) == []

    def test_one_poisoned_record_harms_no_other(self, ledger: Ledger) -> None:
        deep: Any = []
        for _ in range(100_000):
            deep = [deep]
        poison = {
            "too long": record("x" * 156),
            "empty": record(""),
            "nul": record("a\0b"),
            "no name": record("no name", name=None),
            "no number": record("no number", retries="many"),
            "no text": record("no text", queue=5),
            "naive": record("naive", eta=datetime(2024, 1, 1)),
            "deep": record("deep", headers={"deep": deep}),
        }
        good = [record(f"good {number}") for number in range(20)]
        for position, one in enumerate(poison.values()):
            good.insert(3 * position, one)
        ledger.record(good)
        assert sorted(row.task_id for row in rows(ledger)) == sorted(
            f"good {number}" for number in range(20)
        )
        aside = rows(ledger, undecodable)
        assert len(aside) == len(poison)
        assert all(row.error.startswith("The task record cannot be stored: ") for row in aside)
        errors = " ".join(row.error for row in aside)
        for expected in ("more than 155", "is empty", "characters that databases", "naive"):
            assert expected in errors
        bodies = [row.body.decode() for row in aside]
        assert any('"retries":"many"' in body for body in bodies)
        while deep:  # taken apart by hand: its destruction would be as deep
            deep = deep.pop()

    def test_undecodable_messages_are_kept_once(self, ledger: Ledger) -> None:
        message = Undecodable(
            error="not JSON: \0",
            body=b"\x80\x04\x00raw",
            body_size=10_000_000,
            received_at=NOW,
            queue="platform.fifo",
            routing_key="r" * 300,
            content_type="application/x-python-serialize",
            content_encoding="binary",
            headers={"id": "a", "bad": float("nan")},
            properties={"delivery_mode": 2},
        )
        ledger.record_undecodable([])
        ledger.record_undecodable([message, message])
        ledger.record_undecodable([message])
        (row,) = rows(ledger, undecodable)
        assert (row.error, row.body, row.body_size) == (
            "not JSON: \ufffd",
            b"\x80\x04\x00raw",
            10_000_000,
        )
        assert row.received_at == NOW and row.routing_key == "r" * 255
        assert json.loads(row.headers) == {"id": "a", "bad": None}
        assert len(row.digest) == 64
        ledger.record_undecodable([replace(message, body=b"other"), Undecodable(error="empty")])
        ledger.record_undecodable([replace(message, digest=row.digest, body=b"cut")])
        assert len(rows(ledger, undecodable)) == 3

    # -- reading ------------------------------------------------------------------------------

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
        names = ["export.pdf", "Export.pdf", "export.pdf.a4", "exportxpdf", "ex%.pdf"]
        ledger.record(record(name, name=name, queue=name[:6]) for name in names)

        def ids(name: str) -> list[str]:
            return sorted(one.task_id for one in ledger.find(name=name))

        assert ids("export.pdf") == ["export.pdf"]
        assert ids("export.*") == ["export.pdf", "export.pdf.a4"]
        assert ids("e*") == ["ex%.pdf", "export.pdf", "export.pdf.a4", "exportxpdf"]
        assert ids("ex%*") == ["ex%.pdf"]
        assert ids("*") == sorted(names)
        assert ids("pdf") == []
        assert [one.task_id for one in ledger.find(queue="Export")] == ["Export.pdf"]

    def test_find_by_headers(self, ledger: Ledger) -> None:
        headers: dict[str, dict[str, Any] | None] = {
            "five": {"tenant": 5, "who": {"name": "Eva", "roles": ["a", "b"]}, "on": True},
            "text": {"tenant": "5", 'quo"te': "it's", "none": None},
            "one": {"on": 1, "tenant": 50},
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
        assert ids(tenant=5, on=False) == []
        assert ids() == ["five", "none", "one", "text"]

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
        kind = {"postgresql": "timestamp", "sqlite": "datetime"}.get(
            engine.dialect.name, "datetime(6)"
        )
        with engine.begin() as connection:
            for column in (f"date_started {kind}", "runtime float"):
                connection.exec_driver_sql(f"ALTER TABLE celery_taskmeta ADD COLUMN {column}")
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

    # -- retention ----------------------------------------------------------------------------

    @pytest.fixture
    def aged(self, ledger: Ledger) -> Ledger:
        now = datetime.now(timezone.utc)
        for age in range(1, 11):
            for state in ("SUCCESS", "FAILURE", "STARTED", None):
                key = f"{state} {age}"
                ledger.record([record(key, published_at=now - age * LONG)])
                if state is not None:
                    add_result(ledger, key, state)
        ledger.record([record("retried", published_at=now - 9 * LONG)])
        ledger.record([record("retried", published_at=now, retries=1)])
        add_result(ledger, "retried", "SUCCESS")
        ledger.record_undecodable(
            Undecodable(error="e", body=b"%d" % age, received_at=now - age * LONG)
            for age in range(1, 11)
        )
        return ledger

    def test_prune(self, aged: Ledger) -> None:
        calls: list[tuple[int, int]] = []
        deleted = aged.prune(
            5.5 * LONG, batch=3, on_progress=lambda done, total: calls.append((done, total))
        )
        assert deleted == 10  # 5 days, SUCCESS and FAILURE
        left = {row.task_id for row in rows(aged)}
        assert "SUCCESS 5" in left and "SUCCESS 6" not in left and "FAILURE 10" not in left
        assert {"STARTED 10", "None 10", "retried"} <= left and len(left) == 31
        assert {row.task_id for row in rows(aged, taskmeta)} == {
            key for key in left if not key.startswith("None")
        }
        assert len(rows(aged, undecodable)) == 5
        assert calls[-1] == (20, 20) and len(calls) == 7
        assert aged.prune(5.5 * LONG) == 0

    def test_prune_keeps_failures(self, aged: Ledger) -> None:
        assert aged.prune(5.5 * LONG, keep_failures=True) == 5
        assert aged.get("FAILURE 10") is not None and aged.get("SUCCESS 10") is None
        assert len(rows(aged, undecodable)) == 10

    def test_prune_everything(self, aged: Ledger) -> None:
        assert aged.prune(0 * LONG, include_unfinished=True) == 41
        assert rows(aged) == [] and rows(aged, taskmeta) == [] and rows(aged, undecodable) == []

    # -- results elsewhere --------------------------------------------------------------------

    def test_results_in_another_database(self, url: str, tmp_path: Any) -> None:
        other = f"sqlite:///{tmp_path / 'results.db'}"
        with Ledger(other) as owner, Ledger(url, other) as ledger:
            ledger.record(record(f"{number:04}", root_id="0000") for number in range(1100))
            early = ledger.get("0001")
            assert early is not None and early.state == "PENDING"  # no result table yet
            owner.upgrade()
            for key, state in {"0001": "SUCCESS", "0002": "FAILURE", "1000": "STARTED"}.items():
                add_result(owner, key, state, result=b'"r"', worker="w")
            one = ledger.get("0001")
            assert one is not None
            assert (one.state, one.result, one.worker) == ("SUCCESS", "r", "w")
            assert {one.state for one in ledger.find(limit=2000)} == {
                "PENDING",
                "SUCCESS",
                "FAILURE",
                "STARTED",
            }
            workflow = ledger.workflow("0001")
            assert workflow is not None
            assert (len(workflow.tasks), workflow.state) == (1100, "FAILURE")
            for ask in (
                lambda: ledger.find(state="FAILURE"),
                lambda: ledger.summary(),
                lambda: ledger.unfinished(LONG),
            ):
                with pytest.raises(LedgerError, match=r"another database \(sqlite.*LEDGER_URL"):
                    ask()
            assert ledger.prune(LONG) == 2
            assert len(rows(owner, taskmeta)) == 3  # not ours to delete

    def test_results_in_no_database(self, url: str) -> None:
        with Ledger(url, NO_RESULTS) as ledger:
            ledger.record([record("a")])
            one = ledger.get("a")
            assert one is not None and one.state == "PENDING"
            with pytest.raises(LedgerError, match="no SQL database"):
                ledger.find(state="SUCCESS")
            with pytest.raises(LedgerError, match="include_unfinished"):
                ledger.prune(LONG)
            assert ledger.prune(LONG, include_unfinished=True) == 1

    def test_celery_groups_live_in_the_same_tables(self, ledger: Ledger, url: str) -> None:
        ledger.upgrade()
        app = Celery("app", backend="db+" + url, set_as_current=False)
        app.conf.update(result_extended=True, database_create_tables_at_setup=False)
        group = app.GroupResult(str(uuid.uuid4()), [app.AsyncResult("a"), app.AsyncResult("b")])
        group.save()
        restored = app.GroupResult.restore(group.id)
        assert [one.id for one in restored.results] == ["a", "b"]

    def test_a_result_row_that_is_updated(self, ledger: Ledger) -> None:
        ledger.record([record("a")])
        add_result(ledger, "a", "STARTED")
        with ledger._engine.begin() as connection:
            connection.execute(update(taskmeta).values(status="SUCCESS", result=b"[1]"))
        (one,) = ledger.find(state="SUCCESS")
        assert one.result == [1]
