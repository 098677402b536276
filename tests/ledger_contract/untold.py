"""Tasks whose outcome is not told, and results that no task accounts for."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import func, insert, select

from cadasta.workertoolbox.checks.database import check_database
from cadasta.workertoolbox.ledger.ledger import Ledger
from cadasta.workertoolbox.ledger.retention import Pruning
from cadasta.workertoolbox.results.backend import ToolboxBackend
from cadasta.workertoolbox.sql.tables import attempt, taskmeta, tasksetmeta
from tests.ledger_contract.helpers import LONG, NOW, LedgerFixture, add_result, record, rows


def add_group(ledger: Ledger, key: str, date_done: datetime = NOW) -> None:
    """Write a group's result, as Celery would."""
    row = {"taskset_id": key, "result": b"[]", "date_done": date_done.replace(tzinfo=None)}
    with ledger._engine.begin() as connection:
        connection.execute(insert(tasksetmeta).values(row))


def add_attempt(ledger: Ledger, task_id: str, place: int = 0, ended_at: datetime = NOW) -> None:
    """Write an attempt, as the result backend would."""
    row = {"task_id": task_id, "place": place, "retries": place, "state": "RETRY"}
    with ledger._engine.begin() as connection:
        connection.execute(insert(attempt).values(**row, ended_at=ended_at))


def record_one_of_now(ledger: Ledger) -> None:
    """Show that the monitor is not behind."""
    ledger.record([record("of now", published_at=datetime.now(timezone.utc))])


class Untold(LedgerFixture):
    @pytest.fixture
    def mixed(self, ledger: Ledger) -> Ledger:
        """Tasks that ignore their result, and others, with and without an outcome."""
        quiet = {"name": "quiet", "ignore_result": True, "root_id": "root"}
        ledger.record(record(key, **quiet) for key in ("done", "failed", "untold"))
        ledger.record(record(key, root_id="root") for key in ("root", "waits", "gave up"))
        ledger.record([record("unlock", name="celery.chord_unlock", ignore_result=True)])
        for key, state in {"done": "SUCCESS", "failed": "FAILURE", "gave up": "IGNORED"}.items():
            add_result(ledger, key, state)
        add_result(ledger, "root", "SUCCESS")
        return ledger

    def found(self, ledger: Ledger, *states: str) -> set[str]:
        return {one.task_id for one in ledger.find(state=states)}

    def test_outcomes_that_are_recorded(self, mixed: Ledger) -> None:
        assert self.found(mixed, "PENDING") == {"untold", "waits", "unlock"}
        assert self.found(mixed, "IGNORED") == {"gave up"}
        assert self.found(mixed, "FAILURE") == {"failed"}
        assert self.found(mixed, "PENDING", "IGNORED") == {"untold", "waits", "unlock", "gave up"}
        gave_up, untold = mixed.get("gave up"), mixed.get("untold")
        assert gave_up and gave_up.is_final
        assert untold and (untold.state, untold.is_final) == ("PENDING", False)
        assert {one.task_id for one in mixed.unfinished(LONG)} == {"waits"}
        assert [(one.name, dict(one.states)) for one in mixed.summary().names] == [
            ("export.pdf", {"IGNORED": 1, "PENDING": 1, "SUCCESS": 1}),
            ("quiet", {"FAILURE": 1, "PENDING": 1, "SUCCESS": 1}),
        ]

    def test_outcomes_that_are_not_recorded(self, mixed: Ledger, url: str) -> None:
        with Ledger(url, records_ignored=False) as ledger:
            assert self.found(ledger, "PENDING") == {"waits"}
            assert self.found(ledger, "IGNORED") == {"gave up", "untold", "unlock"}
            assert self.found(ledger, "PENDING", "IGNORED") == {
                "waits",
                "gave up",
                "untold",
                "unlock",
            }
            assert self.found(ledger, "SUCCESS", "IGNORED") == {
                "done",
                "root",
                "gave up",
                "untold",
                "unlock",
            }
            assert self.found(ledger, "FAILURE", "PENDING") == {"failed", "waits"}
            untold = ledger.get("untold")
            assert untold and (untold.state, untold.is_final) == ("IGNORED", True)
            assert {one.task_id for one in ledger.unfinished(LONG)} == {"waits"}
            assert ledger.summary().states == {"IGNORED": 3, "SUCCESS": 2, "FAILURE": 1} | {
                "PENDING": 1
            }

    def test_an_ignored_outcome_does_not_hold_up_a_workflow(self, ledger: Ledger, url: str) -> None:
        ledger.record([record("root", root_id="root")])
        ledger.record([record("quiet", root_id="root", parent_id="root", ignore_result=True)])
        add_result(ledger, "root", "SUCCESS")
        with Ledger(url, records_ignored=False) as untold:
            workflow = untold.workflow("root")
            assert workflow and workflow.state == "SUCCESS"
        workflow = ledger.workflow("root")
        assert workflow and workflow.state == "STARTED"
        add_result(ledger, "quiet", "SUCCESS")
        workflow = ledger.workflow("root")
        assert workflow and workflow.state == "SUCCESS"

    def test_a_chord_that_was_given_up_is_counted(self, ledger: Ledger) -> None:
        for key in ("waits", "failed", "done"):
            ledger.record([record(key, name="celery.chord_unlock", ignore_result=True)])
        add_result(ledger, "failed", "FAILURE")
        add_result(ledger, "done", "SUCCESS")
        assert ledger.summary().states == {"FAILURE": 1, "SUCCESS": 1}

    # -- what no task accounts for ----------------------------------------------------------------

    def test_prune_takes_results_that_no_task_accounts_for(self, ledger: Ledger) -> None:
        now = datetime.now(timezone.utc)
        ledger.record([record("waits"), record("new", published_at=now), record("done")])
        for number in range(25):  # many of one moment, more than a batch
            add_result(ledger, f"never published {number}", "FAILURE")
            add_group(ledger, f"group {number}")
            add_attempt(ledger, f"never recorded {number}")
        for key, state in {"done": "SUCCESS", "new": "SUCCESS", "waits": "RETRY"}.items():
            add_result(ledger, key, state, date_done=None if state == "RETRY" else NOW)
            add_attempt(ledger, key)
        add_result(ledger, "goes on", "STARTED", date_done=None)
        add_attempt(ledger, "goes on")
        young = {"date_done": now.replace(tzinfo=None)}
        add_result(ledger, "young", "FAILURE", **young)
        add_group(ledger, "young", now)
        add_attempt(ledger, "young", ended_at=now)
        assert ledger.prune(LONG, batch=10) == 1
        kept = {row.task_id for row in rows(ledger, taskmeta)}
        assert kept == {"waits", "new", "goes on", "young"}
        assert {row.task_id for row in rows(ledger, attempt)} == kept
        assert [row.taskset_id for row in rows(ledger, tasksetmeta)] == ["young"]

    def test_prune_keeps_failures_that_no_task_accounts_for(self, ledger: Ledger) -> None:
        record_one_of_now(ledger)
        add_result(ledger, "failed", "FAILURE")
        add_result(ledger, "done", "SUCCESS")
        assert ledger.prune(LONG, keep_failures=True) == 0
        assert [row.task_id for row in rows(ledger, taskmeta)] == ["failed"]
        assert ledger.prune(LONG) == 0
        assert rows(ledger, taskmeta) == []

    def test_prune_takes_what_began_long_ago_if_asked_to(self, ledger: Ledger) -> None:
        record_one_of_now(ledger)
        for number in range(25):
            add_result(ledger, f"{number}", "STARTED", date_done=None, date_started=NOW)
        add_result(ledger, "by db+", "STARTED")  # Celery's own backend dates each state
        ledger.prune(LONG)
        assert len(rows(ledger, taskmeta)) == 26
        ledger.prune(LONG, include_unfinished=True, batch=10)
        assert rows(ledger, taskmeta) == []

    def test_prune_goes_by_the_number_where_no_index_helps(self, ledger: Ledger) -> None:
        record_one_of_now(ledger)
        for number in range(25):
            moment = (NOW - number * timedelta(hours=1)).replace(tzinfo=None)
            add_result(ledger, f"{number}", "SUCCESS", date_done=moment)
        (by_date,) = (index for index in taskmeta.indexes if "date_done" in str(index.name))
        by_date.drop(ledger._engine)
        ledger.prune(LONG, batch=10)
        assert rows(ledger, taskmeta) == []

    @pytest.mark.parametrize("is_recorded", [True, False])
    @pytest.mark.parametrize("behind", [2 * LONG, LONG + timedelta(minutes=30)], ids=str)
    def test_prune_keeps_results_whose_copies_may_wait(
        self, ledger: Ledger, behind: timedelta, is_recorded: bool
    ) -> None:
        """The monitor is behind; a publisher's clock that is ahead does not say otherwise."""
        now = datetime.now(timezone.utc)
        ledger.record([record("ahead", published_at=now + 365 * LONG)])
        if is_recorded:
            ledger.record([record("the last one", published_at=now - behind)])
        ended = {
            "waits": now - (LONG + behind) / 2,
            "of the last hour": now - behind - timedelta(minutes=10),
            "never published": now - behind - LONG,
        }
        for key, moment in ended.items():
            naive = moment.replace(tzinfo=None)
            add_result(ledger, key, "SUCCESS", date_done=naive)
            add_result(ledger, f"{key} started", "STARTED", date_done=None, date_started=naive)
            add_attempt(ledger, f"{key} attempt", ended_at=moment)
        ledger.prune(LONG, include_unfinished=True, batch=2)
        kept = set(ended) - ({"never published"} if is_recorded else set())
        assert {row.task_id for row in (*rows(ledger, taskmeta), *rows(ledger, attempt))} == {
            key + kind for key in kept for kind in ("", " started", " attempt")
        }

    def test_prune_keeps_the_result_of_a_task_that_was_published_again_meanwhile(
        self, ledger: Ledger
    ) -> None:
        now = datetime.now(timezone.utc)
        ledger.record([record("a"), record("b"), record("b", published_at=now, retries=1)])
        add_result(ledger, "a", "FAILURE")
        add_result(ledger, "b", "FAILURE")
        pruning = Pruning(ledger._engine, ledger._results, now - LONG, False, False, batch=10)
        assert pruning._delete(["a", "b"]) == 1  # as they were read a moment ago
        assert [row.task_id for row in rows(ledger)] == ["b"]
        assert [row.task_id for row in rows(ledger, taskmeta)] == ["b"]

    def test_prune_does_not_take_a_quiet_task_before_it_is_due(self, ledger: Ledger) -> None:
        later = datetime.now(timezone.utc) + LONG
        ledger.record([record("due", ignore_result=True, eta=NOW)])
        ledger.record([record("later", ignore_result=True, eta=later)])
        assert ledger.prune(LONG) == 1
        assert [row.task_id for row in rows(ledger)] == ["later"]

    def test_prune_takes_tables_of_other_names(self, url: str) -> None:
        app = Celery("renamed", backend=f"toolbox+{url}", set_as_current=False)
        app.conf.update(
            result_extended=True,
            database_table_names={"task": "my_results", "group": "my_groups"},
            LEDGER_URL=url,
        )
        assert self._levels(app) == {("results", "warning")}  # no result has made them yet
        self.store_and_prune(app)
        assert self._levels(app) == set()

    def _levels(self, app: Celery) -> set[tuple[str, str]]:
        """What ``check`` finds wrong with the results."""
        found = [one for one in check_database(app) if "results" in one.subject]
        return {(one.subject, one.level) for one in found if one.level != "ok"}

    def store_and_prune(self, app: Celery) -> None:
        """Store a result of each kind in the app's tables, and prune them all."""
        backend: ToolboxBackend = app.backend
        with Ledger.from_app(app) as ledger:
            ledger.upgrade()
            ledger.record([record("a", published_at=datetime.now(timezone.utc))])
            for key in ("a", "never recorded"):
                backend.store_result(key, 1, "SUCCESS")
            app.GroupResult("g", [app.AsyncResult("a")]).save()
            done = ledger.get("a")
            assert done and done.state == "SUCCESS"
            assert ledger.prune(timedelta(seconds=-5)) == 1
            tables = backend.store.tables
            with ledger._engine.connect() as connection:
                for table in (tables.task, tables.group):
                    count: Any = select(func.count()).select_from(table)
                    assert connection.scalar(count) == 0
        backend.store.engine.dispose()
