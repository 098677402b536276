"""The ledger on SQLite, and what needs no server."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from cadasta.workertoolbox import Query
from cadasta.workertoolbox.errors import LedgerError
from cadasta.workertoolbox.ledger.ledger import Ledger
from cadasta.workertoolbox.sql.tables import undecodable
from tests.ledger_contract import NOW, LedgerContract, add_result, record, rows


class TestSQLite(LedgerContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'folder' / 'ledger.db'}"


def test_in_memory_from_several_threads() -> None:
    with Ledger("sqlite://") as ledger:
        threads = [
            threading.Thread(target=lambda n=n: ledger.record([record(f"{n}")])) for n in range(4)
        ]
        ledger.upgrade()
        for thread in threads:
            thread.start()
            thread.join()
        assert sorted(one.task_id for one in ledger.find()) == ["0", "1", "2", "3"]


def test_a_table_at_fault_sets_nothing_aside() -> None:
    with Ledger("sqlite://") as ledger:
        ledger.upgrade()
        with ledger._engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER refuse BEFORE INSERT ON celery_task "
                "BEGIN SELECT RAISE(ABORT, 'not today'); END"
            )
        for size in (1, 5):
            with pytest.raises(LedgerError, match="Cannot record any task.*not today"):
                ledger.record(record(f"{number}") for number in range(size))
        assert rows(ledger, undecodable) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"after": "nonsense!"}, "is not a cursor"),
        ({"after": "AAAA"}, "is not a cursor"),
        ({"after": "ü"}, "is not a cursor"),
        ({"after": ""}, "is not a cursor"),
        ({"limit": 0}, "from 1 to 10,000"),
        ({"limit": 10_001}, "from 1 to 10,000"),
        ({"limit": "5"}, "from 1 to 10,000"),
        ({"since": datetime(2024, 1, 1)}, "since=.* has no time zone"),
        ({"until": datetime(2024, 1, 1)}, "until=.* has no time zone"),
    ],
)
def test_wrong_arguments_of_find(arguments: dict[str, Any], message: str) -> None:
    with Ledger("sqlite://") as ledger, pytest.raises(LedgerError, match=message):
        ledger.find(**arguments)


def test_find_takes_a_query_or_conditions() -> None:
    with Ledger("sqlite://") as ledger:
        with pytest.raises(LedgerError, match="a query or conditions, not both"):
            ledger.find(Query(states="FAILURE"), name="export.pdf")
        for batch in (0, 10_001):
            with pytest.raises(LedgerError, match="from 1 to 10,000"):  # before the first task
                ledger.iterate(Query(), batch=batch)
        with pytest.raises(LedgerError, match="is not a cursor"):
            ledger.find(Query(), after="nonsense!")


def test_an_empty_condition_of_find_finds_nothing() -> None:
    with Ledger("sqlite://") as ledger:
        ledger.record([record("a", queue="")])
        conditions: list[dict[str, Any]] = [{"name": ""}, {"root_id": ""}, {"state": ""}]
        for condition in conditions:
            assert len(ledger.find(**condition)) == 0
        assert len(ledger.find(state=[], headers={})) == 1


def test_a_reader_makes_no_file(tmp_path: Path) -> None:
    place = tmp_path / "none.sqlite3"
    with Ledger(f"sqlite:///{place}", upgrade=False) as reader:
        with pytest.raises(LedgerError, match=r"none\.sqlite3 are missing.*ledger upgrade"):
            reader.find()
    assert not place.exists()


def test_an_app_has_a_reader(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    app = Celery("app", backend="db+" + url, set_as_current=False)
    with Ledger.from_app(app, upgrade=False) as reader:
        with pytest.raises(LedgerError, match="missing"):
            reader.find()
        with Ledger.from_app(app) as writer:
            writer.record([record("a")])
        assert len(reader.find()) == 1  # the tables were made in the meantime


def test_wrong_ages() -> None:
    with Ledger("sqlite://") as ledger:
        with pytest.raises(LedgerError, match="older_than=5 is not an age"):
            ledger.unfinished(5)  # type: ignore[arg-type]
        with pytest.raises(LedgerError, match="is not an age"):
            ledger.prune(timedelta.max)
        with pytest.raises(LedgerError, match="since=.* has no time zone"):
            ledger.summary(datetime(2024, 1, 1))


def test_repr_has_no_password() -> None:
    ledger = Ledger("postgresql://someone:s3cr:et@host/name?sslpassword=s3cret")
    assert "s3cr" not in repr(ledger)
    assert repr(ledger) == ("<Ledger postgresql+psycopg2://someone:***@host/name?sslpassword=***>")
    ledger.close()


def test_a_database_that_is_not_there() -> None:
    with Ledger("postgresql://u:s3cret@127.0.0.1:1/none") as ledger:
        with pytest.raises(LedgerError, match="server runs and that LEDGER_URL is right") as info:
            ledger.get("a")
        assert "s3cret" not in str(info.value)
        with pytest.raises(LedgerError):
            ledger.record([record("a")])


def test_an_unsupported_database() -> None:
    pytest.importorskip("sqlalchemy.dialects.oracle")
    with pytest.raises(LedgerError, match=r"cannot be kept in|not installed"):
        Ledger("oracle+oracledb://u:p@host/name")


def test_from_app_takes_the_result_backend(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    app = Celery("app", backend="db+" + url, set_as_current=False)
    with Ledger.from_app(app) as ledger:
        ledger.record([record("a")])
        add_result(ledger, "a", "SUCCESS")
        assert len(ledger.find(state="SUCCESS")) == 1
    app = Celery("app", backend="database", set_as_current=False)
    app.conf.database_url = url
    with Ledger.from_app(app) as ledger:
        assert len(ledger.find(state="SUCCESS")) == 1


def test_from_app_takes_ledger_url_first(tmp_path: Path) -> None:
    app = Celery("app", backend=f"db+sqlite:///{tmp_path / 'results.db'}", set_as_current=False)
    app.conf.LEDGER_URL = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger.from_app(app) as ledger:
        ledger.record([record("a")])
        with pytest.raises(LedgerError, match="another database"):
            ledger.find(state="SUCCESS")
    assert (tmp_path / "ledger.db").exists()
    app.conf.LEDGER_URL = f"sqlite:///{tmp_path / 'other' / '..' / 'results.db'}"
    with Ledger.from_app(app) as ledger:
        assert len(ledger.find(state="SUCCESS")) == 0  # the same file by another way


def test_from_app_with_results_elsewhere(tmp_path: Path) -> None:
    app = Celery("app", backend="redis://127.0.0.1/0", set_as_current=False)
    with pytest.raises(LedgerError, match="CELERY_LEDGER_URL"):
        Ledger.from_app(app)
    app.conf.LEDGER_URL = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger.from_app(app) as ledger, pytest.raises(LedgerError, match="in no SQL database"):
        ledger.summary()


def test_from_app_with_a_table_of_another_name(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    app = Celery("app", backend="db+" + url, set_as_current=False)
    app.conf.database_table_names = {"task": "my_results"}
    with Ledger(url) as owner:
        owner.record([record("a")])
        with owner._engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE my_results AS SELECT * FROM celery_taskmeta")
            connection.exec_driver_sql(
                "INSERT INTO my_results (task_id, status) VALUES ('a', 'REVOKED')"
            )
    with Ledger.from_app(app) as ledger:
        assert [one.state for one in ledger.find()] == ["REVOKED"]


def test_a_missing_result_table(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with Ledger(url, results_table="nowhere") as ledger:
        with pytest.raises(LedgerError, match="result table nowhere is missing"):
            ledger.find()


def test_values_are_frozen() -> None:
    with Ledger("sqlite://") as ledger:
        ledger.record([record("a", published_at=NOW)])
        one = ledger.get("a")
    assert one is not None
    with pytest.raises(AttributeError):
        one.state = "SUCCESS"  # type: ignore[misc]
    assert one.published_at == NOW.astimezone(timezone(timedelta(hours=2)))
