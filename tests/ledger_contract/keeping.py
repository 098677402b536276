"""What leaves the ledger, and results that are elsewhere."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import update

from cadasta.workertoolbox.errors import LedgerError
from cadasta.workertoolbox.ledger.ledger import NO_RESULTS, Ledger
from cadasta.workertoolbox.ledger.model import Undecodable
from cadasta.workertoolbox.sql.tables import taskmeta, undecodable
from tests.ledger_contract.helpers import LONG, LedgerFixture, add_result, record, rows


class Keeping(LedgerFixture):
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

    def test_prune_takes_who_never_tells_its_result(self, ledger: Ledger) -> None:
        ledger.record([record("untold", ignore_result=True), record("lost")])
        assert ledger.prune(LONG) == 1
        assert [row.task_id for row in rows(ledger)] == ["lost"]

    def test_prune_everything(self, aged: Ledger) -> None:
        assert aged.prune(0 * LONG, include_unfinished=True) == 41
        assert rows(aged) == [] and rows(aged, taskmeta) == [] and rows(aged, undecodable) == []

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
