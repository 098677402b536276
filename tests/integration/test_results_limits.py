"""What each database refuses of a result: its size, and characters that it lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from celery import Celery, states
from celery.result import AsyncResult, GroupResult
from sqlalchemy import create_engine, select, text

from cadasta.workertoolbox import Ledger
from cadasta.workertoolbox.errors import ResultError
from cadasta.workertoolbox.results.backend import ToolboxBackend
from cadasta.workertoolbox.sql.tables import taskmeta
from tests.result_contract import request

MEBIBYTE = 2**20


def make_backend(url: str) -> ToolboxBackend:
    app = Celery("limits", backend=f"toolbox+{url}", set_as_current=False)
    app.conf.result_extended = True
    backend = app.backend
    assert isinstance(backend, ToolboxBackend)
    return backend


@pytest.fixture
def mariadb(mariadb_url: str) -> Iterator[ToolboxBackend]:
    backend = make_backend(mariadb_url)
    yield backend
    backend.store.engine.dispose()


@pytest.mark.parametrize(
    "value", ["x" * 20 * MEBIBYTE, '"' * 6 * MEBIBYTE], ids=["long", "escaped"]
)
def test_a_result_above_max_allowed_packet(mariadb: ToolboxBackend, value: str) -> None:
    """The server hangs up, as one does that goes away: it would be tried for half an hour."""
    for task_id in ("known", "new"):
        if task_id == "known":
            mariadb.store_result(task_id, {}, states.STARTED, request=request())
        with pytest.raises(ResultError, match=r"takes [\d,]{10} bytes, .*is 16,777,216"):
            mariadb.store_result(task_id, value, states.SUCCESS, request=request())
    with pytest.raises(ResultError, match="group"):
        GroupResult("g" * 155, [AsyncResult("i" * 100, app=mariadb.app)] * 150_000).save(mariadb)
    mariadb.store_result("next", 1, states.SUCCESS, request=request())
    assert mariadb.get_result("next") == 1


def test_an_error_above_max_allowed_packet(mariadb: ToolboxBackend) -> None:
    error = ValueError("begin " + "x" * 20 * MEBIBYTE)
    trace = "first line\n" + "y" * 20 * MEBIBYTE + "\nlast line"
    for state in (states.RETRY, states.FAILURE):
        mariadb.store_result("a", error, state, traceback=trace, request=request())
        meta = mariadb.get_task_meta("a", cache=False)
        assert meta["status"] == state
        assert isinstance(meta["result"], ValueError)
        assert re.match(r"begin x{1994}\.\.\. \(20,971,526 characters", str(meta["result"]))
        assert "max_allowed_packet" in str(meta["result"])
        assert meta["traceback"].startswith("first line\n")
        assert meta["traceback"].endswith("\nlast line")
        assert len(meta["traceback"]) < 30_000


def test_a_column_that_celery_made_too_small(mariadb: ToolboxBackend) -> None:
    """A TEXT and a BLOB of MySQL end at 64 KiB."""
    mariadb.store.tables  # noqa: B018 - makes them
    with mariadb.store.engine.connect() as connection:
        connection.execute(
            text("ALTER TABLE celery_taskmeta MODIFY result BLOB, MODIFY traceback TEXT")
        )
    error = ValueError("e" * 70_000)
    mariadb.store_result("a", error, states.FAILURE, "t" * 70_000, request=request())
    assert str(mariadb.get_result("a")).startswith("e" * 2000 + "...")
    with pytest.raises(ResultError, match="70,0"):
        mariadb.store_result("b", "r" * 70_000, states.SUCCESS, request=request())


def check_characters(backend: ToolboxBackend, url: str) -> None:
    for number, odd in enumerate(("💥", "задача", "é", "\U0010ffff", "\ud800", "a\0")):
        asked = request(task=f"export.{odd}", hostname=odd, delivery_info={"routing_key": odd})
        task_id = f"{number}-{odd}"
        backend.store_result(task_id, {}, states.STARTED, request=asked)
        assert backend.get_state(task_id) == states.STARTED
        error = ValueError(odd)
        backend.store_result(task_id, error, states.RETRY, f"T: {odd}", asked)
        backend.store_result(task_id, error, states.FAILURE, f"T: {odd}", asked)
        meta = backend.get_task_meta(task_id)
        assert (meta["task_id"], meta["status"]) == (task_id, states.FAILURE)
        assert repr(meta["result"]) == repr(error)
        assert meta["name"].startswith("export.") and meta["traceback"].startswith("T: ")
        with Ledger(url) as ledger:
            (attempt,) = backend_attempts(ledger, backend, task_id)
        assert attempt[0] == "RETRY"
        group = GroupResult(task_id, [AsyncResult(task_id, app=backend.app)], app=backend.app)
        group.save()
        assert GroupResult.restore(task_id, app=backend.app) == group
    with backend.store.engine.connect() as connection:
        assert len(connection.execute(select(taskmeta.c.task_id)).all()) == 6


def backend_attempts(
    ledger: Ledger, backend: ToolboxBackend, task_id: str
) -> list[tuple[str, str | None]]:
    key = backend.store.tables.fitting.key(task_id)
    return [(one.state, one.error) for one in ledger.attempts(key)]


@pytest.mark.parametrize("charset", ["utf8mb4", "utf8mb3", "latin1", "ascii", "cp1251"])
@pytest.mark.parametrize("mode", ["STRICT_TRANS_TABLES", ""])
def test_characters_that_mariadb_lacks(mariadb_url: str, charset: str, mode: str) -> None:
    engine = create_engine(mariadb_url)
    with engine.begin() as connection:
        name = engine.url.database
        connection.execute(text(f"ALTER DATABASE `{name}` CHARACTER SET {charset}"))
    engine.dispose()
    url = f"{mariadb_url}?init_command=SET sql_mode='{mode}'"
    backend = make_backend(url)
    check_characters(backend, mariadb_url)
    trace = backend.get_task_meta("0-💥")["traceback"]
    assert trace == ("T: 💥" if charset == "utf8mb4" else "T: \\U0001f4a5")
    backend.store.engine.dispose()


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1251", "SQL_ASCII"])
def test_characters_that_postgresql_lacks(postgres_url: str, encoding: str) -> None:
    name = f"{postgres_url.rpartition('/')[2]}_{encoding.lower()}"
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    options = f"TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    url = f"{postgres_url.rpartition('/')[0]}/{name}"
    backend = make_backend(url)
    try:
        check_characters(backend, url)
    finally:
        backend.store.engine.dispose()
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()
