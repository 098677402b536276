"""What is written comes back, whatever is in it, and however often it comes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from cadasta.workertoolbox.ledger import recorder as ledger_writes
from cadasta.workertoolbox.ledger.ledger import Ledger
from cadasta.workertoolbox.ledger.model import Undecodable
from cadasta.workertoolbox.messages.decoding import TaskRecord
from cadasta.workertoolbox.sql.tables import undecodable
from tests.ledger_contract.helpers import NOW, SECOND, LedgerFixture, record, rows


class Recording(LedgerFixture):
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
    @pytest.mark.parametrize("column", ["headers", "stamps", "properties"])
    def test_what_the_first_publication_said_stays_true(
        self, ledger: Ledger, column: str, together: bool
    ) -> None:
        said: list[dict[str, Any] | None] = [
            {"tenant": 7, "none": None, "deep": {"a": 1}, "gone": [1]},
            None,
            {"deep": {"b": [None, 2]}, "gone": None, "none": None, "', :null, {}": 1.5},
            {"', :null, {}": {"x": None}, "more": True},
        ]
        publications = [
            record("a", retries=retries, published_at=NOW + retries * SECOND, **{column: value})
            for retries, value in enumerate(said)
        ]
        for batch in [publications] if together else [[one] for one in publications]:
            ledger.record(batch)
            ledger.record(batch)  # as after a crash of the monitor
        found = ledger.get("a")
        assert found is not None
        assert getattr(found, column) == {
            "tenant": 7,
            "none": None,
            "deep": {"b": [None, 2]},
            "gone": None,
            "', :null, {}": {"x": None},
            "more": True,
        }
        if column == "headers":
            assert [one.task_id for one in ledger.find(headers={"tenant": 7, "more": True})] == [
                "a"
            ]

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

    @pytest.mark.parametrize("together", [True, False])
    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2)])
    def test_the_parent_is_that_of_the_first_publication(
        self, ledger: Ledger, together: bool, order: tuple[int, ...]
    ) -> None:
        # Celery names a task that replaces itself, or the root that retries, its own parent.
        publications = [
            record("a", parent_id="who scheduled it"),
            record("a", parent_id="a", retries=1, published_at=NOW + SECOND),
            record("a", parent_id="a", replacements=1, published_at=NOW + 2 * SECOND),
        ]
        root = [record("r"), record("r", parent_id="r", retries=1, published_at=NOW + SECOND)]
        batches = [[publications[index]] for index in order] + [[one] for one in root]
        for batch in [sum(batches, [])] if together else batches:
            ledger.record(batch)
        found, first = ledger.get("a"), ledger.get("r")
        assert found is not None and first is not None
        assert (found.parent_id, found.replacements) == ("who scheduled it", 1)
        assert (first.parent_id, first.retries) == (None, 1)

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
