"""The ledger on MariaDB: the common tests, rights, and what MySQL does its own way."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from celery.backends.database.session import ResultModelBase
from sqlalchemy import text
from sqlalchemy.engine import make_url

from cadasta.workertoolbox.errors import LedgerError
from cadasta.workertoolbox.ledger.ledger import Ledger
from cadasta.workertoolbox.sql import migrations
from cadasta.workertoolbox.sql.engines import make_engine
from tests.ledger_contract import LedgerContract, add_result, record, rows
from tests.migration_contract import MigrationContract
from tests.result_contract import ResultContract


class TestMariaDB(LedgerContract):
    @pytest.fixture
    def url(self, mariadb_url: str) -> str:
        return mariadb_url


class TestResults(ResultContract):
    @pytest.fixture
    def url(self, mariadb_url: str) -> str:
        return mariadb_url


class TestMigrations(MigrationContract):
    @pytest.fixture
    def url(self, mariadb_url: str) -> str:
        return mariadb_url


@pytest.fixture
def role(mariadb_url: str) -> Iterator[tuple[str, str, str]]:
    """A role without any rights: the database's name, its own for GRANT, its URL."""
    name = f"toolbox_{uuid.uuid4().hex[:12]}"
    address = make_url(mariadb_url)
    engine = make_engine(mariadb_url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE USER {name}@'%' IDENTIFIED BY 's3cret'"))
        connection.execute(text(f"GRANT USAGE ON *.* TO {name}@'%'"))
        # Without a right on anything in it, a database cannot even be chosen.
        connection.execute(text("CREATE TABLE unrelated (id integer)"))
        connection.execute(text(f"GRANT SELECT ON unrelated TO {name}@'%'"))
    url = address.set(username=name, password="s3cret").render_as_string(hide_password=False)
    yield str(address.database), f"{name}@'%'", url
    with engine.begin() as connection:
        connection.execute(text(f"DROP USER {name}@'%'"))
    engine.dispose()


@pytest.mark.parametrize("rights", ["results", "tasks", "none"])
def test_a_role_with_some_rights(mariadb_url: str, role: tuple[str, str, str], rights: str) -> None:
    database, name, url = role
    with Ledger(mariadb_url) as owner:
        owner.upgrade()
        tables = {
            "results": ("celery_taskmeta", "celery_tasksetmeta"),
            "tasks": ("celery_task", "celery_task_undecodable"),
            "none": (),
        }[rights]
        with owner._engine.begin() as connection:
            for table in tables:
                connection.execute(
                    text(f"GRANT SELECT, INSERT, UPDATE ON {database}.{table} TO {name}")
                )
        engine = make_engine(url)
        if rights == "none":
            with pytest.raises(LedgerError, match="ledger upgrade"):
                migrations.upgrade(engine)
        else:
            assert migrations.upgrade(engine) == []
        engine.dispose()
        if rights == "tasks":
            with Ledger(url) as monitor:
                monitor.record([record("a"), record("a", retries=1)])
                with pytest.raises(LedgerError, match="lacks a right: GRANT"):
                    monitor.get("a")
            assert len(rows(owner)) == 1


def test_ids_are_exact(mariadb_url: str) -> None:
    with Ledger(mariadb_url) as ledger:
        ledger.record([record("Task"), record("task"), record("täsk")])
        assert len(ledger.find()) == 3
        add_result(ledger, "task", "SUCCESS")
        found = ledger.get("task")
        assert found is not None and found.state == "SUCCESS"


@pytest.mark.parametrize("charset", ["utf8mb3", "latin1", "utf8mb4"])
def test_result_tables_of_another_character_set(mariadb_url: str, charset: str) -> None:
    engine = make_engine(mariadb_url)
    with engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE CHARACTER SET {charset}"))
    ResultModelBase.metadata.create_all(engine)
    engine.dispose()
    with Ledger(mariadb_url) as ledger:
        ledger.record([record("a"), record("b"), record("ü")])
        add_result(ledger, "a", "SUCCESS")
        add_result(ledger, "ü", "FAILURE")
        assert {one.task_id: one.state for one in ledger.find()} == {
            "a": "SUCCESS",
            "b": "PENDING",
            "ü": "FAILURE",
        }
        assert [one.task_id for one in ledger.find(state="FAILURE")] == ["ü"]
        assert [one.task_id for one in ledger.find(state="PENDING")] == ["b"]
        assert ledger.summary().states == {"SUCCESS": 1, "PENDING": 1, "FAILURE": 1}
