"""What the migrations do on every database: the same tests on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from celery import Celery
from celery.backends.database.models import TaskExtended, TaskSet
from celery.backends.database.session import ResultModelBase
from sqlalchemy import Engine, func, inspect, select, text

from cadasta.workertoolbox.errors import LedgerError
from cadasta.workertoolbox.sql import migrations
from cadasta.workertoolbox.sql import tables as schema
from cadasta.workertoolbox.sql.engines import make_engine
from tests.conftest import StartProcess

#: Waits for the others, then upgrades and tells what it did; "celery" makes Celery's tables only.
RACER = """
import sys, time
from pathlib import Path
from cadasta.workertoolbox.sql import migrations
from cadasta.workertoolbox.sql.engines import make_engine
from celery.backends.database.session import SessionManager
import celery.backends.database.models
url, what, folder, number = sys.argv[1:]
Path(folder, "ready-" + number).touch()
while not Path(folder, "go").exists():
    time.sleep(0.001)
engine = make_engine(url)
if what == "celery":
    SessionManager().prepare_models(engine)
else:
    print("applied", migrations.upgrade(engine))
engine.dispose()
"""

STEPS = ["0001_tables", "0002_attempts"]

#: Every table as the database describes it, but for the order of the constraints.
Layout = dict[str, Any]


def layout(engine: Engine, *tables: str) -> Layout:
    found = inspect(engine)
    return {
        table: {
            "columns": [
                (
                    column["name"],
                    str(column["type"]),
                    column["nullable"],
                    column["default"],
                    column.get("autoincrement"),
                )
                for column in found.get_columns(table)
            ],
            "key": found.get_pk_constraint(table)["constrained_columns"],
            "unique": [one["column_names"] for one in found.get_unique_constraints(table)],
            "indexes": sorted(
                (one["name"] or "", one["column_names"], bool(one["unique"]))
                for one in found.get_indexes(table)
            ),
        }
        for table in tables
    }


def without_ours(found: Layout) -> Layout:
    """Leave out our columns and index of a result table, and the sizes of MySQL's types."""
    for table in found.values():
        table["columns"] = [
            (name, kind.replace("LONGBLOB", "BLOB").replace("MEDIUMTEXT", "TEXT"), *rest)
            for name, kind, *rest in table["columns"]
            if name not in ("date_started", "runtime")
        ]
        table["indexes"] = [one for one in table["indexes"] if "status" not in one[1]]
    return found


class MigrationContract:
    """The tests; a subclass has the fixture ``url``, of an empty database."""

    @pytest.fixture
    def engine(self, url: str) -> Iterator[Engine]:
        engine = make_engine(url)
        yield engine
        engine.dispose()

    def test_once_is_enough(self, engine: Engine) -> None:
        assert migrations.current(engine) is None
        assert migrations.upgrade(engine) == STEPS
        assert migrations.current(engine) == migrations.HEAD == STEPS[-1]
        assert migrations.upgrade(engine) == []
        assert set(inspect(engine).get_table_names()) >= set(schema.metadata.tables)

    def test_the_steps_make_what_the_schema_says(self, engine: Engine) -> None:
        migrations.upgrade(engine)
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection,
                opts={
                    "compare_type": True,
                    "include_name": lambda name, kind, parents: (
                        kind != "table" or name in schema.metadata.tables
                    ),
                    # Indexes that another dialect alone has.
                    "include_object": lambda one, name, kind, reflected, other: (
                        kind != "index"
                        or reflected
                        or name != "ix_celery_task_headers"
                        or engine.dialect.name == "postgresql"
                    ),
                },
            )
            differences = compare_metadata(context, schema.metadata)
        if engine.dialect.name != "postgresql":
            # Only PostgreSQL has identity columns, which older Alembics do not know.
            differences = [one for one in differences if "Identity()" not in str(one)]
        assert differences == []

    def test_result_tables_are_as_celery_makes_them(self, engine: Engine) -> None:
        """But for an index and two columns of ours, and MySQL's small types."""
        names = (TaskExtended.__tablename__, TaskSet.__tablename__)
        ResultModelBase.metadata.create_all(engine)
        expected = layout(engine, *names)
        ResultModelBase.metadata.drop_all(engine)
        migrations.upgrade(engine)
        found = layout(engine, *names)
        assert without_ours(found) == without_ours(expected)

    def test_celerys_tables_are_left_as_they_are(self, engine: Engine, url: str) -> None:
        ResultModelBase.metadata.create_all(engine)
        app = Celery("app", backend="db+" + url, set_as_current=False)
        app.backend.store_result("a", 1, "SUCCESS")
        before = layout(engine, "celery_taskmeta", "celery_tasksetmeta")
        migrations.upgrade(engine)
        after = layout(engine, "celery_taskmeta", "celery_tasksetmeta")
        assert without_ours(after) == without_ours(before)
        assert app.AsyncResult("a").result == 1

    def test_columns_of_extended_results_are_added(self, engine: Engine, url: str) -> None:
        ResultModelBase.metadata.create_all(engine)
        with engine.begin() as connection:
            for column in ("args", "kwargs", "stamps", "worker", "children"):
                connection.execute(text(f"ALTER TABLE celery_taskmeta DROP COLUMN {column}"))
        migrations.upgrade(engine)
        app = Celery("app", backend="db+" + url, set_as_current=False)
        app.conf.result_extended = True
        app.backend.store_result("a", 1, "SUCCESS")
        assert app.AsyncResult("a").result == 1
        columns = {column["name"] for column in inspect(engine).get_columns("celery_taskmeta")}
        assert columns == set(schema.taskmeta.c.keys())

    def test_a_broken_off_start_is_finished(self, engine: Engine) -> None:
        schema.metadata.create_all(engine, tables=[schema.task])  # and no version
        assert migrations.upgrade(engine) == STEPS
        assert set(inspect(engine).get_table_names()) >= set(schema.metadata.tables)

    def test_somebody_elses_celery_task(self, engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE celery_task (id integer, name varchar(20))"))
        with pytest.raises(LedgerError, match=r"not the ledger's \(it lacks args, .*rename it"):
            migrations.upgrade(engine)
        assert migrations.current(engine) is None

    def test_an_engine_in_autocommit(self, url: str) -> None:
        engine = make_engine(url, isolation_level="AUTOCOMMIT")
        assert migrations.upgrade(engine) == STEPS
        assert migrations.upgrade(engine) == []
        with engine.connect() as connection:
            connection.execute(text("INSERT INTO celery_taskmeta (id) VALUES (1)"))
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM celery_taskmeta")) == 1
        engine.dispose()

    def test_a_newer_database(self, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
        migrations.upgrade(engine)
        with engine.begin() as connection:
            connection.execute(
                text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999_future'")
            )
        with caplog.at_level(logging.WARNING):
            assert migrations.upgrade(engine) == []
        assert "9999_future, made by a newer workertoolbox" in caplog.text
        assert migrations.current(engine) == "9999_future"

    @pytest.mark.slow
    def test_eight_processes_start_at_once(
        self, url: str, engine: Engine, run_process: StartProcess, tmp_path: Path
    ) -> None:
        whats = ["ours"] * 6 + ["celery"] * 2
        racers = [
            run_process(
                *(sys.executable, "-W", "error", "-c", RACER, url, what, str(tmp_path), str(n)),
                env={"PYTHONPATH": ":".join(sys.path)},
                name=f"racer {n}",
            )
            for n, what in enumerate(whats)
        ]
        for number, racer in enumerate(racers):
            racer.wait_for((tmp_path / f"ready-{number}").exists, 60)
        (tmp_path / "go").touch()
        codes = [racer.wait(60) for racer in racers]
        assert codes[:6] == [0] * 6  # Celery's own, which takes no lock, may lose its race
        logs = [racer.log_text() for racer in racers]
        assert sum(f"applied {STEPS}" in log for log in logs) == 1, logs
        assert sum("applied []" in log for log in logs) == 5, logs
        assert set(inspect(engine).get_table_names()) >= set(schema.metadata.tables)
        with engine.connect() as connection:
            version = text(f"SELECT count(*) FROM {migrations.VERSION_TABLE}")
            assert connection.scalar(version) == 1
            assert connection.scalar(select(func.count()).select_from(schema.task)) == 0
