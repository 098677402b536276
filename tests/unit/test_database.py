"""Engines and URLs, on SQLite and without a server."""

from __future__ import annotations

import gc
import os
import sqlite3
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import StatementError
from sqlalchemy.pool import NullPool

from cadasta.workertoolbox.errors import LedgerError
from cadasta.workertoolbox.plain.urls import build_url, database_url, mask_url
from cadasta.workertoolbox.sql import engines as database
from cadasta.workertoolbox.sql.engines import is_memory, make_engine, same_database, writing
from cadasta.workertoolbox.sql.failures import brief
from cadasta.workertoolbox.sql.tables import UTCDateTime


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("amqp://guest:guest@host:5672//", "amqp://guest:***@host:5672//"),
        ("redis://:s3cret@host/0", "redis://:***@host/0"),
        ("postgresql://u:p@s/s:3c@host/db", "postgresql://u:***@host/db"),
        ("sqs://AKIA:a/b+c=@", "sqs://AKIA:***@"),
        ("db+postgresql+psycopg2://u:p%40@h/d", "db+postgresql+psycopg2://u:***@h/d"),
        ("amqp://a:p;w@h;amqp://b:q,x@i", "amqp://a:***@h;amqp://b:***@i"),
        ("cannot reach 'amqp://a:pw@h' (x@y)", "cannot reach 'amqp://a:***@h' (x@y)"),
        ("postgresql://h/d?user=u&password=s3c@r&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        ("redis://h/0?ssl_password=x'", "redis://h/0?ssl_password=***'"),
        ("amqp://host:5672/ by a@b", "amqp://host:5672/ by a@b"),
        ("postgresql://user@host:5432/db", "postgresql://user@host:5432/db"),
        ("no URL: a@b, x://", "no URL: a@b, x://"),
        ("", ""),
    ],
)
def test_mask_url(shown: str, expected: str) -> None:
    assert mask_url(shown) == expected


@pytest.mark.parametrize("password", ["plain", "@:/%?#[]& ;,'\"\\", "ünï", ""])
def test_build_url_takes_any_password(password: str) -> None:
    url = build_url("postgresql+psycopg2", "us er@", password, "db.example", 5433, "na me")
    parsed = make_url(url)
    assert (parsed.username, parsed.password or "") == ("us er@", password)
    assert (parsed.host, parsed.port) == ("db.example", 5433)
    assert parsed.drivername == "postgresql+psycopg2"
    if password:
        assert password not in mask_url(url)


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("h", 0, "mysql+pymysql://u:p@h/n"),
        ("h", "3307", "mysql+pymysql://u:p@h:3307/n"),
        ("::1", 5432, "mysql+pymysql://u:p@[::1]:5432/n"),
        ("/var/run/pg", "", "mysql+pymysql://u:p@/n?host=%2Fvar%2Frun%2Fpg"),
        ("/run", 5433, "mysql+pymysql://u:p@/n?host=%2Frun&port=5433"),
    ],
)
def test_build_url_of_hosts(host: str, port: int | str, expected: str) -> None:
    assert build_url("mysql+pymysql", "u", "p", host, port, "n") == expected
    assert build_url("x", "", "", "h", 0, "n") == "x://h/n"


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("db+postgresql://u@h/d", "postgresql://u@h/d"),
        ("toolbox+postgresql+psycopg2://u@h/d", "postgresql+psycopg2://u@h/d"),
        ("database+sqlite:///x.db", "sqlite:///x.db"),
        ("redis://h/0", None),
        ("sentinel+redis://h", None),
        ("rpc://", None),
        ("disabled", None),
        ("", None),
    ],
)
def test_database_url(backend: str, expected: str | None) -> None:
    assert database_url(backend) == expected


def test_urls_do_not_load_sqlalchemy() -> None:
    code = (
        "import sys; from cadasta.workertoolbox.plain.urls import build_url, database_url;"
        "assert 'sqlalchemy' not in sys.modules, 'loaded'"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("postgresql://a:x@H/d", "postgresql+psycopg2://b:y@h:5432/d", True),
        ("postgresql://a@h/d", "postgresql://a@h/e", False),
        ("postgresql://a@h/d", "mysql://a@h/d", False),
        ("mysql://a@h/d", "mariadb+pymysql://a@h:3306/d", True),
        ("sqlite:///x.db", f"sqlite:///{os.path.abspath('x.db')}", True),
        ("sqlite://", "sqlite://", False),
        ("postgres://a@h/d", "postgresql://a@h:5432/d", True),
    ],
)
def test_same_database(one: str, other: str, same: bool) -> None:
    assert same_database(one, other) is same


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "is not a database URL"),
        ("postgresql://u:s3cret@host:port/d", "is not a database URL"),
        ("nosql://u:s3cret@host/d", "does not know"),
        ("postgresql://u:p@s3cret@host/d", "holds an @: write it as %40"),
        ("postgresql+nodriver://u:s3cret@host/d", "does not know"),
        ("mysql+mysqldb://u:s3cret@host/d", "is not installed.*pip install"),
        ("sqlite:////proc/none/x.db", "folder of .* cannot be made"),
    ],
)
def test_wrong_urls(url: str, message: str) -> None:
    with pytest.raises(LedgerError, match=message) as info:
        make_engine(url)
    assert "s3cret" not in str(info.value)


def test_settings_of_servers() -> None:
    engine = make_engine("postgresql://u:p@h/d?connect_timeout=3", pool_size=4)
    assert engine.dialect.driver == "psycopg2"
    assert engine.pool.size() == 4  # type: ignore[attr-defined]
    _, arguments = engine.dialect.create_connect_args(engine.url)
    assert arguments["connect_timeout"] == "3"
    assert make_engine("mysql://u@h/d").dialect.driver in ("pymysql", "mysqldb")
    assert isinstance(make_engine("postgresql://h/d", poolclass=NullPool).pool, NullPool)
    hosts = "postgresql://u@/d?host=a:1&host=b:2&target_session_attrs=read-write"
    engine = make_engine(hosts, timeout=10)
    _, arguments = engine.dialect.create_connect_args(engine.url)
    assert (arguments["host"], arguments["port"]) == ("a,b", "1,2")
    assert arguments["target_session_attrs"] == "read-write"


def test_sqlite_files(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.db"
    engine = make_engine(f"sqlite:///{path}", connect_args={"cached_statements": 5})
    with engine.connect() as connection:
        found = [
            connection.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        ]
    assert found == ["wal", 30_000, 0, 1]
    engine.dispose()
    assert path.exists()


def test_a_read_only_file_that_is_not_in_wal(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    plain = sqlite3.connect(path)
    plain.execute("CREATE TABLE t (id integer)")
    plain.close()
    engine = make_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM t")) == 0
    engine.dispose()


def test_memory_is_one_database_for_all_threads() -> None:
    engine = make_engine("sqlite://")
    assert is_memory(engine.url) and not is_memory(make_url("sqlite:///x.db"))
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (id integer)"))
    counts: list[Any] = []

    def count() -> None:
        with engine.connect() as connection:
            counts.append(connection.scalar(text("SELECT count(*) FROM t")))

    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
    engine.dispose()
    assert counts == [0]


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (n integer)"))
        connection.execute(text("INSERT INTO t VALUES (0)"))

    def add() -> None:
        for _ in range(50):
            with writing(engine) as connection:
                # Read, then write: with a plain BEGIN one of two would fail at once.
                found = connection.scalar(text("SELECT n FROM t"))
                connection.execute(text("UPDATE t SET n = :n"), {"n": found + 1})

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT n FROM t")) == 200
    engine.dispose()


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (n integer)"))
    with writing(engine) as writer:
        writer.execute(text("INSERT INTO t VALUES (1)"))
        with engine.connect() as reader:
            assert reader.scalar(text("SELECT count(*) FROM t")) == 0
    with engine.connect() as reader:
        assert reader.scalar(text("SELECT count(*) FROM t")) == 1
    engine.dispose()


def test_what_fails_is_rolled_back(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with pytest.raises(ZeroDivisionError), writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (n integer)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
        raise ZeroDivisionError
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM sqlite_master")) == 0
    engine.dispose()


def test_autocommit(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'x.db'}", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE t (n integer)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
        with engine.connect() as other:  # without any commit
            assert other.scalar(text("SELECT count(*) FROM t")) == 1
    engine.dispose()


def test_a_fork_shares_no_sqlite_connection(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (n integer)"))
    assert engine.pool.checkedin() == 1  # type: ignore[attr-defined]
    child = os.fork()
    if child == 0:
        try:
            clean = engine.pool.checkedin() == 0  # type: ignore[attr-defined]
            with writing(engine) as connection:
                connection.execute(text("INSERT INTO t VALUES (1)"))
            os._exit(0 if clean else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with writing(engine) as connection:
        connection.execute(text("INSERT INTO t VALUES (2)"))
        assert connection.scalar(text("SELECT count(*) FROM t")) == 2
    engine.dispose()


def test_engines_are_forgotten_when_nobody_has_them() -> None:
    engine = make_engine("sqlite://")
    assert engine in database._engines
    engine.dispose()
    before = len(database._engines)
    del engine
    assert len(database._engines) <= before


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///{}/x.db"])
def test_connections_are_closed_with_their_engine(url: str, tmp_path: Path) -> None:
    engine = make_engine(url.format(tmp_path))
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        opened: Any = connection.connection.dbapi_connection
    assert opened.execute("SELECT 1").fetchone() == (1,)
    del engine, connection
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        opened.execute("SELECT 1")


def test_errors_have_no_values(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.connect() as connection:
        with pytest.raises(Exception) as info:
            connection.execute(text("SELECT * FROM nowhere WHERE x = :x"), {"x": "s3cret"})
    assert "s3cret" not in str(info.value)
    assert brief(info.value) == "OperationalError: no such table: nowhere"
    engine.dispose()


def test_utc_datetime() -> None:
    table = Table("t", MetaData(), Column("id", Integer), Column("at", UTCDateTime))
    engine = make_engine("sqlite://")
    zone = timezone(timedelta(hours=-3, minutes=-30))
    moments = [
        datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=zone),
        datetime(2024, 1, 1, 3, 30, tzinfo=timezone.utc),
        datetime(1, 1, 2, tzinfo=timezone.utc),
        None,
    ]
    with engine.begin() as connection:
        table.create(connection)
        rows = [{"id": number, "at": moment} for number, moment in enumerate(moments)]
        connection.execute(insert(table), rows)
        found = connection.execute(select(table.c.at).order_by(table.c.id)).scalars().all()
        assert found == moments
        assert all(moment is None or moment.tzinfo is timezone.utc for moment in found)
        stored = connection.execute(text("SELECT at FROM t ORDER BY at")).scalars().all()
        assert stored == [
            None,
            "0001-01-02 00:00:00.000000",
            "2024-01-01 03:30:00.000000",
            "2024-01-01 03:30:00.000001",
        ]
        with pytest.raises(StatementError, match="naive datetime"):
            connection.execute(insert(table), [{"id": 9, "at": datetime(2024, 1, 1)}])
    engine.dispose()
