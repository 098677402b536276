"""Each option of an engine, and Celery's own settings, on each database: results arrive."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pymysql
import pytest
from celery import Celery
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import (
    AssertionPool,
    NullPool,
    QueuePool,
    SingletonThreadPool,
    StaticPool,
)

from cadasta.workertoolbox import LedgerError

DATABASES = ("sqlite", "postgres", "mariadb")
ON_ALL: dict[str, Any] = {
    "isolation_level": "SERIALIZABLE",
    "execution_options": {"isolation_level": "SERIALIZABLE", "stream_results": True},
    "execution_options ": {"isolation_level": "autocommit", "yield_per": 10, "logging_token": "x"},
    "isolation_level ": "AUTOCOMMIT",
    "isolation_level  ": None,
    "poolclass": NullPool,
    "poolclass ": QueuePool,
    "poolclass  ": StaticPool,
    "poolclass   ": AssertionPool,
    "poolclass    ": SingletonThreadPool,
    "pool_size": 1,
    "pool_size ": 0,
    "max_overflow": 0,
    "max_overflow ": -1,
    "pool_timeout": 3,
    "pool_recycle": -1,
    "pool_use_lifo": True,
    "pool_pre_ping": True,
    "pool_pre_ping ": False,
    "pool_reset_on_return": "rollback",
    "pool_reset_on_return ": "commit",
    "pool_reset_on_return  ": None,
    "pool_logging_name": "pool",
    "echo": True,
    "echo_pool": "debug",
    "logging_name": "engine",
    "connect_args": {},
    "connect_args ": None,
    "execution_options  ": None,
    "hide_parameters": False,
    "future": True,
    "json_serializer": json.dumps,
    "json_deserializer": json.loads,
    "plugins": [],
    "query_cache_size": 0,
    "use_insertmanyvalues": False,
    "insertmanyvalues_page_size": 1,
    "label_length": 20,
    "max_identifier_length": 60,
    "enable_from_linting": False,
    "skip_autocommit_rollback": True,
}
LEVELS = ("READ COMMITTED", "READ_COMMITTED", "REPEATABLE READ", "READ UNCOMMITTED")
ON_ONE: dict[str, list[dict[str, Any]]] = {
    "sqlite": [
        *({"isolation_level": level} for level in LEVELS),
        {"native_datetime": False},
        {"connect_args": {"timeout": 3, "cached_statements": 5}},
        {"connect_args": {"isolation_level": "IMMEDIATE", "check_same_thread": False}},
        {"module": sqlite3},
    ],
    "postgres": [
        *({"isolation_level": level} for level in LEVELS),
        {"connect_args": {"application_name": "mine", "options": "-c statement_timeout=5s"}},
        {"connect_args": {"keepalives": 0, "tcp_user_timeout": 1000, "connect_timeout": 3}},
        {"client_encoding": "utf8"},
        {"executemany_mode": "values_plus_batch"},
        {"execution_options": {"schema_translate_map": {None: "public"}}},
        {"module": psycopg2},
    ],
    "mariadb": [
        *({"isolation_level": level} for level in LEVELS),
        {"connect_args": {"read_timeout": 5, "write_timeout": 5, "charset": "utf8mb4"}},
        {"connect_args": {"autocommit": False}},
        {"module": pymysql},
    ],
}
CASES = [
    *((name, {option.strip(): value}) for name in DATABASES for option, value in ON_ALL.items()),
    *((name, options) for name, several in ON_ONE.items() for options in several),
]


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/results.sqlite3"
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def apps() -> Iterator[list[Celery]]:
    made: list[Celery] = []
    yield made
    for app in made:
        app.backend.store.engine.dispose()


def make_app(apps: list[Celery], url: str, **settings: Any) -> Celery:
    app = Celery("options", backend=f"toolbox+{url}", set_as_current=False)
    app.conf.update(task_always_eager=True, task_store_eager_result=True, **settings)
    apps.append(app)
    return app


def run(app: Celery) -> None:
    """Run a task as a worker does, and read its outcome through the backend."""

    @app.task(name="add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    task_id = add.delay(1, 2).id
    found = app.AsyncResult(task_id)
    assert found.get(timeout=5) == 3
    app.GroupResult("group", [found]).save()
    restored = app.GroupResult.restore("group")
    assert restored is not None and restored.get(timeout=5) == [3]
    app.backend.cleanup()


def seen(url: str) -> list[tuple[Any, ...]]:
    """The results as another connection sees them."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT status FROM celery_taskmeta"))
            return [tuple(row) for row in rows]
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("url", "options"),
    CASES,
    indirect=["url"],
    ids=[re.sub(r" at 0x\w+", "", f"{name}-{options}")[:60] for name, options in CASES],
)
def test_each_option_of_the_engine(apps: list[Celery], url: str, options: dict[str, Any]) -> None:
    run(make_app(apps, url, database_engine_options=options))
    assert seen(url) == [("SUCCESS",)]


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_connections_of_the_application(apps: list[Celery], url: str) -> None:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        made: Any = lambda: sqlite3.connect(str(parsed.database))  # noqa: E731
    else:
        driver: Any = psycopg2 if "psycopg2" in url else pymysql
        names = {"host": parsed.host, "port": parsed.port, "user": parsed.username}
        made = lambda: driver.connect(**names, database=parsed.database)  # noqa: E731
    run(make_app(apps, url, database_engine_options={"creator": made}))
    run(make_app(apps, url, database_engine_options={"pool": QueuePool(made)}))
    assert seen(url) == [("SUCCESS",), ("SUCCESS",)]


@pytest.mark.parametrize("url", DATABASES, indirect=True)
@pytest.mark.parametrize(
    "settings",
    [
        {"database_engine_options": None},
        {"database_short_lived_sessions": True},
        {"database_create_tables_at_setup": False},
        {"database_table_names": None, "database_table_schemas": None},
        {"DATABASE_TIMEOUT": 0},
        {"DATABASE_TIMEOUT": 2.5},
    ],
    ids=str,
)
def test_each_setting_of_celery(apps: list[Celery], url: str, settings: dict[str, Any]) -> None:
    run(make_app(apps, url, **settings))
    assert seen(url) == [("SUCCESS",)]


def test_tables_of_other_names(apps: list[Celery], postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA mine"))
    names = {"database_table_names": {"task": "t", "group": "g"}}
    run(make_app(apps, postgres_url, **names, database_table_schemas={"task": "mine"}))
    moved = {"execution_options": {"schema_translate_map": {None: "mine"}}}
    run(make_app(apps, postgres_url, database_engine_options=moved))
    with engine.connect() as connection:
        for table in ("mine.t", "mine.celery_taskmeta"):
            assert connection.scalar(text(f"SELECT status FROM {table}")) == "SUCCESS"
    engine.dispose()


def test_a_callback_is_given_the_engine(apps: list[Celery], tmp_path: Path) -> None:
    url, opened = f"sqlite:///{tmp_path}/results.sqlite3", []

    def prepare(engine: Engine) -> None:
        event.listen(engine, "connect", lambda *_: opened.append(1))

    run(make_app(apps, url, database_engine_callback=prepare))
    assert opened


def test_memory_takes_the_options_of_a_pool(apps: list[Celery]) -> None:
    options = {"pool_size": 3, "max_overflow": 1, "poolclass": NullPool}
    run(make_app(apps, "sqlite://", database_engine_options=options))


@pytest.mark.parametrize("url", DATABASES, indirect=True)
@pytest.mark.parametrize(
    "options",
    [{"nonsense": 1}, {"poolclass": NullPool, "pool_size": 3}, {"isolation_level": "NONE SUCH"}],
    ids=str,
)
def test_what_cannot_be_used_is_named(url: str, options: dict[str, Any]) -> None:
    app = Celery("options", backend=f"toolbox+{url}", set_as_current=False)
    app.conf.database_engine_options = options
    with pytest.raises(LedgerError, match=next(reversed(options)).replace("_", ".")):
        app.backend  # noqa: B018
