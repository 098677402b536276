"""The ledger on PostgreSQL: the common tests, rights, and processes that write at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import func, inspect, select, text
from sqlalchemy.engine import make_url

from cadasta.workertoolbox import Query
from cadasta.workertoolbox.checks.database import check_database
from cadasta.workertoolbox.conf import Config
from cadasta.workertoolbox.errors import LedgerError
from cadasta.workertoolbox.ledger import queries as ledger_queries
from cadasta.workertoolbox.ledger.ledger import Ledger
from cadasta.workertoolbox.ledger.model import Undecodable
from cadasta.workertoolbox.sql import migrations
from cadasta.workertoolbox.sql.dialects import PostgreSQL
from cadasta.workertoolbox.sql.engines import make_engine
from cadasta.workertoolbox.sql.tables import task, undecodable
from tests.conftest import StartProcess
from tests.ledger_contract import LONG, LedgerContract, add_result, record, rows
from tests.ledger_contract.asking import only_reads, statements
from tests.migration_contract import MigrationContract
from tests.services import wait_until

#: Writes the ids 0 to 1999 in batches of its own order, then says so; told to loop, for ever.
WRITER = """
import random, sys
from datetime import datetime, timedelta, timezone
from cadasta.workertoolbox.ledger.ledger import Ledger
from cadasta.workertoolbox.messages.decoding import TaskRecord
url, seed, forever = sys.argv[1:]
order = random.Random(seed)
moment = datetime(2024, 1, 1, tzinfo=timezone.utc)
with Ledger(url) as ledger:
    ledger.upgrade()
    print("ready", flush=True)
    while True:
        records = [
            TaskRecord(
                task_id=f"task-{n:04}", name="n", queue=f"retry {retries}", retries=retries,
                published_at=moment + timedelta(seconds=retries), args=f"[{n}]",
            )
            for n in range(2000) for retries in range(2)
        ]
        order.shuffle(records)
        for start in range(0, len(records), 50):
            ledger.record(records[start:start + 50])
        if forever == "no":
            break
print("done", flush=True)
"""


class TestPostgreSQL(LedgerContract):
    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url

    def test_prune_takes_tables_of_another_schema(self, ledger: Ledger, url: str) -> None:
        with ledger._engine.begin() as connection:
            connection.execute(text("CREATE SCHEMA mine"))
        app = Celery("schema", backend=f"toolbox+{url}", set_as_current=False)
        schemas = {"task": "mine", "group": "mine"}
        app.conf.update(result_extended=True, database_table_schemas=schemas)
        self.store_and_prune(app)
        assert {one.level for one in check_database(app)} == {"ok"}


class TestMigrations(MigrationContract):
    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[Ledger]:
    with Ledger(postgres_url) as ledger:
        ledger.upgrade()
        yield ledger


def start_writer(run_process: StartProcess, url: str, seed: int, forever: str = "no") -> Any:
    return run_process(
        *(sys.executable, "-c", WRITER, url, str(seed), forever),
        env={"PYTHONPATH": ":".join(sys.path)},
        name=f"writer {seed}",
    )


# -- several processes ------------------------------------------------------------------------


@pytest.mark.slow
def test_overlapping_batches_of_several_processes(
    ledger: Ledger, postgres_url: str, run_process: StartProcess
) -> None:
    writers = [start_writer(run_process, postgres_url, seed) for seed in range(3)]
    for writer in writers:
        assert writer.wait(120) == 0, writer.log_tail()
    found = rows(ledger)
    assert [row.task_id for row in found] == [f"task-{n:04}" for n in range(2000)]
    assert {(row.queue, row.retries, row.publications) for row in found} == {("retry 1", 1, 6)}


@pytest.mark.slow
def test_killed_while_writing(ledger: Ledger, postgres_url: str, run_process: StartProcess) -> None:
    for seed in range(5):
        writer = start_writer(run_process, postgres_url, seed, forever="yes")
        writer.wait_for_log("ready", 60)
        before = _count(ledger)
        writer.wait_for(lambda before=before: _count(ledger) != before or before == 2000, 30)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        with ledger._engine.connect() as connection:
            # Never half a batch: each is of 50 publications.
            publications = connection.scalar(select(func.sum(task.c.publications)))
            assert publications and publications % 50 == 0
    last = start_writer(run_process, postgres_url, 99)
    assert last.wait(60) == 0
    assert [row.task_id for row in rows(ledger)] == [f"task-{n:04}" for n in range(2000)]


def _count(ledger: Ledger) -> int:
    with ledger._engine.connect() as connection:
        return int(connection.scalar(select(func.count()).select_from(task)) or 0)


def test_gives_way_in_a_deadlock(ledger: Ledger) -> None:
    ledger.record([record("a"), record("b")])
    engine = make_engine(ledger._engine.url.render_as_string(hide_password=False))
    with engine.begin() as connection:
        # It is looked for only once, so long after the wait began: the rival must be there.
        connection.execute(
            text(f"ALTER DATABASE {engine.url.database} SET deadlock_timeout = '3s'")
        )
    ledger.close()
    try:
        with engine.connect() as rival:
            rival.execute(text("SET deadlock_timeout = '60s'"))  # the other one gives way
            rival.execute(text("UPDATE celery_task SET queue = 'r' WHERE task_id = 'b'"))
            writer = threading.Thread(
                target=lambda: ledger.record([record("a", retries=1), record("b", retries=1)])
            )
            writer.start()
            wait_until(lambda: _waiting(ledger), what="the writer to wait for the rival")
            # Now each has what the other wants; the server ends the ledger's transaction.
            rival.execute(text("UPDATE celery_task SET origin = 'r' WHERE task_id = 'a'"))
            rival.commit()
            writer.join(30)
    finally:
        engine.dispose()
    assert [(row.origin, row.retries, row.publications) for row in rows(ledger)] == [
        (None, 1, 2),
        (None, 1, 2),
    ]


def _waiting(ledger: Ledger) -> int | None:
    with ledger._engine.connect() as connection:
        waiting: int | None = connection.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock'"
            )
        )
        return waiting


def test_goes_on_after_the_server_closed_its_connections(ledger: Ledger) -> None:
    ledger.record([record("a")])
    engine = make_engine(ledger._engine.url.render_as_string(hide_password=False))
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
                "current_database() AND pid <> pg_backend_pid()"
            )
        )
    engine.dispose()
    ledger.record([record("b")])
    assert len(ledger.find()) == 2


def test_a_forked_child_has_connections_of_its_own(ledger: Ledger) -> None:
    ledger.record([record("parent")])
    child = os.fork()
    if child == 0:
        try:
            ledger.record([record("child")])
            os._exit(0 if len(ledger.find()) == 2 else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    ledger.record([record("parent again")])
    assert len(ledger.find()) == 3


# -- data -------------------------------------------------------------------------------------


def test_arguments_that_jsonb_would_refuse(ledger: Ledger) -> None:
    ledger.record([record("a", args='["\\u0000"]', kwargs='{"x": "\\ud800", "big": 1e400}')])
    found = ledger.get("a")
    assert found is not None
    assert found.args == ["\0"]
    assert found.kwargs == {"x": "\ud800", "big": float("inf")}


def test_records_that_only_postgresql_refuses(ledger: Ledger) -> None:
    ledger.record(
        [
            record("good"),
            record("not json", args="[NaN]"),
            record("raw nul", kwargs='{"a": "\0"}'),
            record("too many", retries=2**31),
            record("too long a number", headers={"n": 10**4000}),
        ]
    )
    assert [row.task_id for row in rows(ledger)] == ["good", "raw nul", "too long a number"]
    raw = ledger.get("raw nul")
    assert raw is not None and raw.kwargs == {"a": "\ufffd"}
    errors = [row.error for row in rows(ledger, undecodable)]
    assert len(errors) == 2
    assert any("InvalidTextRepresentation" in error for error in errors)
    assert any("NumericValueOutOfRange" in error for error in errors)


def test_a_table_of_a_newer_version_sets_nothing_aside(ledger: Ledger) -> None:
    with ledger._engine.begin() as connection:
        connection.execute(text("ALTER TABLE celery_task ADD COLUMN newer integer NOT NULL"))
    with pytest.raises(LedgerError, match='record any task.*NotNullViolation.*"newer"'):
        ledger.record(record(f"{number}") for number in range(5))
    assert rows(ledger, undecodable) == []
    with ledger._engine.begin() as connection:
        connection.execute(text("ALTER TABLE celery_task ALTER newer DROP NOT NULL"))
    ledger.record([record("good"), record("x" * 200)])
    # The probe leaves no trace.
    assert [row.task_id for row in rows(ledger)] == ["good"]
    assert len(rows(ledger, undecodable)) == 1


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (lambda: ledger_queries.is_member("x"), "ix_celery_task_root_id"),
        (
            lambda: ledger_queries.has_headers({"tenant": 5}, PostgreSQL()),
            "ix_celery_task_headers",
        ),
        (lambda: task.c.parent_id == "x", "ix_celery_task_parent_id"),
        (lambda: task.c.group_id == "x", "ix_celery_task_group_id"),
    ],
)
def test_sparse_indexes_are_used(ledger: Ledger, query: Any, index: str) -> None:
    with ledger._engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        statement = select(task.c.task_id).where(query())
        sql = statement.compile(ledger._engine, compile_kwargs={"literal_binds": True})
        plan = connection.exec_driver_sql(f"EXPLAIN {sql}".replace("%%", "%")).scalars().all()
    assert index in "\n".join(plan)


def test_the_index_on_the_state_is_used(ledger: Ledger) -> None:
    table = ledger._results.table()
    assert table is not None
    with ledger._engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        statement = select(table.c.task_id).where(
            ledger_queries.in_states(table, ledger._results.dialect, {"FAILURE", "RETRY"})
        )
        sql = statement.compile(
            ledger._engine, compile_kwargs={"literal_binds": True, "render_postcompile": True}
        )
        plan = connection.exec_driver_sql(f"EXPLAIN {sql}").scalars().all()
    assert "ix_celery_taskmeta_status" in "\n".join(plan)


# -- rights -----------------------------------------------------------------------------------


@pytest.fixture
def role(postgres_url: str) -> Iterator[tuple[str, str]]:
    """The name of a role without any rights, and its URL of the test's database."""
    name = f"toolbox_test_{uuid.uuid4().hex[:12]}"
    engine = make_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 's3cret'"))
        connection.execute(text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
    url = make_url(postgres_url).set(username=name, password="s3cret")
    yield name, url.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))
    engine.dispose()


def grant(ledger: Ledger, *grants: str) -> None:
    with ledger._engine.begin() as connection:
        for one in grants:
            connection.execute(text(f"GRANT {one}"))


def test_a_role_that_may_not_make_tables(postgres_url: str, role: tuple[str, str]) -> None:
    with Ledger(role[1]) as powerless, pytest.raises(LedgerError) as info:
        powerless.record([record("a")])
    assert "ledger upgrade" in str(info.value) and "GRANT CREATE" in str(info.value)
    assert "s3cret" not in str(info.value)


def test_a_worker_needs_the_result_tables_alone(ledger: Ledger, role: tuple[str, str]) -> None:
    name, url = role
    grant(
        ledger,
        f"SELECT, INSERT, UPDATE, DELETE ON celery_taskmeta, celery_tasksetmeta TO {name}",
        f"USAGE ON SEQUENCE task_id_sequence, taskset_id_sequence TO {name}",
    )
    engine = make_engine(url)
    assert migrations.upgrade(engine) == []
    engine.dispose()
    checked = Celery("checked", set_as_current=False)
    config = Config(["export"], broker_url="amqp://", result_backend="toolbox+" + url)
    checked.config_from_object(config)
    levels = {(one.subject, one.level) for one in check_database(checked)}
    assert {("results", "warning"), ("rights on the results", "ok")} <= levels
    assert ("results", "error") not in levels
    app = Celery("app", backend="db+" + url, set_as_current=False)
    app.conf.update(result_extended=True, database_create_tables_at_setup=False)
    app.backend.store_result("a", 5, "SUCCESS")
    assert app.AsyncResult("a").result == 5
    with Ledger(url) as worker, pytest.raises(LedgerError, match="lacks a right: GRANT it"):
        worker.record([record("a")])
    ledger.record([record("a")])
    found = ledger.get("a")
    assert found is not None and found.result == 5


def test_a_monitor_needs_the_task_tables_alone(ledger: Ledger, role: tuple[str, str]) -> None:
    name, url = role
    grant(ledger, f"SELECT, INSERT, UPDATE ON celery_task, celery_task_undecodable TO {name}")
    with Ledger(url) as monitor:
        monitor.record([record("a"), record("x" * 200)])
        monitor.record([record("a", retries=1)])
        monitor.record_undecodable([Undecodable(error="e")])
        with pytest.raises(LedgerError, match="lacks a right"):
            monitor.get("a")
    assert len(rows(ledger)) == 1


@pytest.mark.parametrize("sees_version", [True, False])
def test_a_reader_needs_no_right_but_to_select(
    ledger: Ledger, role: tuple[str, str], sees_version: bool
) -> None:
    name, url = role
    tables = ["celery_task", "celery_taskmeta", "celery_task_attempt"]
    if sees_version:
        tables.append(migrations.VERSION_TABLE)
    grant(ledger, f"SELECT ON {', '.join(tables)} TO {name}")
    ledger.record([record("00", name="mail"), record("01")])
    add_result(ledger, "01", "FAILURE", result=b"{}")
    with ledger._engine.begin() as connection:
        connection.execute(text(f"ALTER ROLE {name} SET default_transaction_read_only = on"))
    with Ledger(url, upgrade=False) as reader, statements(reader) as executed:
        for ask in TestPostgreSQL.questions(reader):
            ask()
        assert (reader.count(Query()), reader.count(Query(states="FAILURE"))) == (2, 1)
        assert [one for one in executed if not only_reads(one)] == []
        with pytest.raises(LedgerError, match="Cannot record tasks"):
            reader.record([record("a")])
    with ledger._engine.begin() as connection:
        if sees_version:
            version = f"UPDATE {migrations.VERSION_TABLE} SET version_num = '0001_tables'"
            connection.execute(text(version))
        else:
            connection.execute(text("ALTER TABLE celery_task DROP COLUMN replacements"))
    message = "at version 0001_tables" if sees_version else "celery_task lacks replacements"
    with Ledger(url, upgrade=False) as reader:
        with pytest.raises(LedgerError, match=rf"{message}.*`celery -A proj ledger upgrade`"):
            reader.find()


def test_a_reader_of_missing_tables(postgres_url: str, role: tuple[str, str]) -> None:
    with Ledger(role[1], upgrade=False) as reader, statements(reader) as executed:
        with pytest.raises(LedgerError, match="missing.*`celery -A proj ledger upgrade`") as info:
            reader.find()
        assert "s3cret" not in str(info.value)
        assert [one for one in executed if not only_reads(one)] == []
    engine = make_engine(postgres_url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def test_a_reader_without_a_right(ledger: Ledger, role: tuple[str, str]) -> None:
    with Ledger(role[1], upgrade=False) as reader:
        with pytest.raises(LedgerError, match="lacks a right: GRANT it"):
            reader.count(Query())


def test_prune_without_the_right_to_delete_results(
    ledger: Ledger, role: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    name, url = role
    grant(
        ledger,
        f"SELECT, DELETE ON celery_task, celery_task_undecodable TO {name}",
        f"SELECT ON celery_taskmeta TO {name}",
    )
    for number in range(5):
        ledger.record([record(f"{number}")])
        add_result(ledger, f"{number}", "SUCCESS")
    with Ledger(url) as cleaner:
        assert cleaner.prune(LONG, batch=2) == 5
    assert rows(ledger) == []
    assert caplog.text.count("may not delete them") == 1


def test_an_old_version_that_may_not_be_changed(
    ledger: Ledger, role: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    name, url = role
    grant(ledger, f"SELECT ON {migrations.VERSION_TABLE} TO {name}")
    with ledger._engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {migrations.VERSION_TABLE}"))
    engine = make_engine(url)
    assert migrations.upgrade(engine) == []
    engine.dispose()
    # Without a version, but with all tables: nothing that this role could or should do.
    assert "Traceback" not in caplog.text


def test_tables_of_celery_that_belong_to_another_role(
    postgres_url: str, role: tuple[str, str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    name, url = role
    owner = make_engine(postgres_url)
    with owner.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE celery_taskmeta (id integer PRIMARY KEY, task_id varchar(155) "
                "UNIQUE, status varchar(50), result bytea, date_done timestamp, traceback text)"
            )
        )
        connection.execute(text(f"GRANT SELECT ON celery_taskmeta TO {name}"))
        connection.execute(text(f"GRANT CREATE ON SCHEMA public TO {name}"))
    owner.dispose()
    with Ledger(url) as ledger:
        ledger.record([record("a")])
        assert "celery_taskmeta stays as it is" in caplog.text
        found = ledger.get("a")
        assert found is not None and found.worker is None
        assert len(ledger.find(state="PENDING")) == 1
