"""A database that does not answer: a frozen server or proxy, or a host that was replaced."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from celery import Celery, states
from celery.exceptions import BackendGetMetaError, BackendStoreError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from cadasta.workertoolbox import Ledger
from cadasta.workertoolbox.plain import stopping
from cadasta.workertoolbox.sql.engines import make_engine
from tests.acceptance.deployment import Deployment
from tests.result_contract import request as running
from tests.services import SilentProxy, wait_until

DATABASES = ("postgres", "mariadb")
SLEEP = {"postgresql": "SELECT pg_sleep(3)", "mysql": "SELECT SLEEP(3)"}
#: Seconds: far more than what is waited for, and far less than for ever.
LONG = 30.0


@pytest.fixture(params=DATABASES)
def direct(request: pytest.FixtureRequest) -> str:
    """The database's own URL."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def proxy(direct: str) -> Iterator[SilentProxy]:
    parsed = make_url(direct)
    with SilentProxy(str(parsed.host), parsed.port or 0) as proxy:
        yield proxy


@pytest.fixture
def url(direct: str, proxy: SilentProxy) -> str:
    """The database's URL through the proxy."""
    through = make_url(direct).set(host=proxy.host, port=proxy.port)
    return through.render_as_string(hide_password=False)


def seconds(call: Callable[[], object]) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


@pytest.mark.parametrize("is_bounded", [True, False])
def test_a_statement_is_given_up(
    url: str, proxy: SilentProxy, is_bounded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(f"{url}?connect_timeout=2", timeout=2, is_bounded=is_bounded)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
        proxy.silence()
        with pytest.raises(OperationalError), caplog.at_level(logging.WARNING):
            assert seconds(lambda: connection.scalar(text("SELECT 2"))) < LONG
    assert re.search(
        r"at 127.0.0.1, database toolbox_test_\w+ has not answered for \d", caplog.text
    )
    with pytest.raises(OperationalError):
        assert seconds(engine.connect) < LONG
    proxy.resume()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 3")) == 3
    engine.dispose()


def test_a_replaced_host(url: str, proxy: SilentProxy) -> None:
    """What was open is dead, and new connections are served."""
    with closing(Ledger(url, timeout=2)) as ledger:
        ledger.upgrade()
        assert ledger.find().tasks == ()
        proxy.silence(only_open=True)
        assert seconds(ledger.find) < LONG
    engine = make_engine(url, timeout=2, is_bounded=True)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    proxy.silence(only_open=True)
    with engine.connect() as connection:  # it was idle, and is asked
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


def test_a_statement_that_takes_its_time(url: str) -> None:
    """The server answers others: it is merely busy."""
    engine = make_engine(url, timeout=1)
    statement = text(SLEEP[engine.dialect.name])
    with engine.connect() as connection:
        connection.execute(statement).all()
    engine.dispose()
    strict = make_engine(url, timeout=1, is_bounded=True)
    with pytest.raises(OperationalError), strict.connect() as connection:
        connection.execute(statement)
    with strict.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    strict.dispose()


def test_what_the_url_says_wins(direct: str) -> None:
    if direct.startswith("mysql"):
        engine = make_engine(f"{direct}?read_timeout=1", timeout=30)
        with pytest.raises(OperationalError), engine.connect() as connection:
            connection.execute(text("SELECT SLEEP(3)"))
    else:
        engine = make_engine(f"{direct}?keepalives_idle=7&tcp_user_timeout=1234", timeout=30)
        with engine.connect() as connection:
            info = connection.connection.dbapi_connection.info  # type: ignore[union-attr]
            found = info.dsn_parameters
        assert (found["keepalives_idle"], found["tcp_user_timeout"]) == ("7", "1234")
        assert found["keepalives_count"] == "3"
    engine.dispose()


@pytest.mark.parametrize("opens", [False, True], ids=["changes arguments", "opens it"])
def test_an_application_s_own_listener_connects(
    url: str, direct: str, proxy: SilentProxy, opens: bool
) -> None:
    """It renews a password, say, and may come after the engine; its connections are watched."""
    user = make_url(direct).username
    wrong = make_url(url).set(username="nobody_of_this_name", query={"connect_timeout": "2"})
    engine = make_engine(wrong.render_as_string(hide_password=False), timeout=2, is_bounded=True)

    def log_in(dialect: Any, record: object, args: Any, parameters: dict[str, Any]) -> Any:
        parameters["user"] = user
        return dialect.connect(*args, **parameters) if opens else None

    event.listen(engine, "do_connect", log_in)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
        proxy.silence()
        with pytest.raises(OperationalError):
            assert seconds(lambda: connection.scalar(text("SELECT 2"))) < LONG
    with pytest.raises(OperationalError):
        assert seconds(engine.connect) < LONG
    engine.dispose()


def sessions(url: str, *conditions: str) -> int:
    """How many sessions of the toolbox a PostgreSQL database has."""
    engine = create_engine(url)
    where = " AND ".join(("application_name = 'cadasta-workertoolbox'", *conditions))
    with engine.connect() as connection:
        count = connection.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity "
                f"WHERE datname = current_database() AND {where}"
            )
        )
    engine.dispose()
    return int(count or 0)


@pytest.mark.parametrize("level", [None, "READ COMMITTED"])
def test_statements_that_wait_for_a_lock_leave_no_sessions_behind(
    postgres_url: str, level: str | None
) -> None:
    """PostgreSQL itself looks for its client once the statement ends, which may be never."""
    app = Celery("locked", backend=f"toolbox+{postgres_url}", set_as_current=False)
    app.conf.update(DATABASE_TIMEOUT=1, result_backend_max_retries=4)
    app.conf.database_engine_options = {"isolation_level": level}
    backend = app.backend
    backend.store_result("a", 1, states.STARTED, request=running())
    other = create_engine(postgres_url)
    with other.begin() as connection:
        connection.execute(text("SELECT 1 FROM celery_taskmeta FOR UPDATE"))
        with pytest.raises(BackendStoreError):
            backend.store_result("a", 2, states.SUCCESS, request=running())
        assert sessions(postgres_url) <= 5
        wait_until(
            lambda: sessions(postgres_url, "wait_event_type = 'Lock'") == 0,
            what="no session that waits for the lock",
        )
    backend.store_result("a", 3, states.SUCCESS, request=running())
    assert backend.get_result("a") == 3
    backend.store.engine.dispose()
    other.dispose()
    wait_until(lambda: sessions(postgres_url) == 0, what="no session")


@pytest.mark.parametrize(
    ("said", "expected"), [("", "2s"), ("?options=-cclient_connection_check_interval%3D0", "0")]
)
@pytest.mark.parametrize("level", ["AUTOCOMMIT", "READ COMMITTED"])
def test_postgresql_looks_for_its_client_unless_told_otherwise(
    postgres_url: str, said: str, expected: str, level: str
) -> None:
    engine = make_engine(postgres_url + said, isolation_level=level)
    for _ in range(2):
        with engine.connect() as connection:
            found = connection.scalar(text("SHOW client_connection_check_interval"))
            assert found == expected
            driver: Any = connection.connection.dbapi_connection
            assert driver.autocommit is (level == "AUTOCOMMIT")
    engine.dispose()


def test_a_connection_that_begins_a_transaction_is_taken(postgres_url: str) -> None:
    """An application's own; the server is not asked to look for its client then."""
    parsed = make_url(postgres_url)

    def connect() -> Any:
        connection = psycopg2.connect(
            host=parsed.host,
            port=parsed.port,
            user=parsed.username,
            password=parsed.password,
            dbname=parsed.database,
        )
        connection.cursor().execute("SELECT 1")
        return connection

    engine = make_engine(postgres_url, creator=connect)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


def test_the_first_host_of_a_list_is_silent(postgres_url: str) -> None:
    parsed = make_url(postgres_url)
    with SilentProxy(str(parsed.host), parsed.port or 0) as silent:
        silent.silence()
        hosts = [f"{silent.host}:{silent.port}", f"{parsed.host}:{parsed.port}"]
        query = {"host": hosts, "connect_timeout": "2", "target_session_attrs": "read-write"}
        several = parsed.set(host=None, port=None, query=query)
        engine = make_engine(several.render_as_string(hide_password=False))
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        engine.dispose()


def test_a_fork_watches_anew(url: str, proxy: SilentProxy) -> None:
    engine = make_engine(url, timeout=2, is_bounded=True)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    child = os.fork()
    if child == 0:
        try:
            with engine.connect() as connection:
                connection.execute(text(SLEEP[engine.dialect.name]))
            os._exit(1)
        except OperationalError:
            os._exit(0)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with pytest.raises(OperationalError), engine.connect() as connection:
        connection.execute(text(SLEEP[engine.dialect.name]))
    engine.dispose()


@pytest.fixture
def app(url: str) -> Iterator[Celery]:
    app = Celery("silent", backend=f"toolbox+{url}", set_as_current=False)
    app.conf.update(DATABASE_TIMEOUT=2, database_engine_options={"connect_args": {}})
    app.conf.database_engine_options["connect_args"]["connect_timeout"] = 2
    yield app
    app.backend.store.engine.dispose()


def test_a_start_is_not_waited_for(app: Celery, proxy: SilentProxy) -> None:
    app.backend.store_result("a", 1, states.SUCCESS, request=running())
    proxy.silence()
    store = app.backend.store_result
    assert seconds(lambda: store("b", 1, states.STARTED, request=running())) < LONG
    proxy.resume()
    store("b", 2, states.SUCCESS, request=running())
    meta = app.backend.get_task_meta("b")
    assert (meta["status"], meta["result"]) == ("SUCCESS", 2)
    assert meta["runtime"] is not None


def test_an_outage_after_a_stop_is_waited_out_for_a_grace(
    app: Celery, proxy: SilentProxy, direct: str
) -> None:
    """A task may end long after its worker was asked to stop: the grace is for its outcome."""
    backend = app.backend
    backend.store_result("a", 1, states.STARTED, request=running())
    stopping.prepare()
    stopping.announce()
    try:
        time.sleep(stopping.GRACE + 0.5)  # the task goes on
        backend.store.engine.dispose()
        proxy.close()
        failures: list[BaseException] = []

        def store() -> None:
            try:
                backend.store_result("a", 2, states.SUCCESS, request=running())
            except BackendStoreError as exc:
                failures.append(exc)

        storing = threading.Thread(target=store)
        storing.start()
        time.sleep(1)  # the length of the outage
        parsed = make_url(direct)
        with SilentProxy(str(parsed.host), parsed.port or 0, at=proxy.port):
            storing.join(LONG)
            assert not failures
            assert backend.get_result("a") == 2
            backend.store.engine.dispose()
        started = time.monotonic()
        with pytest.raises(BackendStoreError):
            backend.store_result("b", 2, states.SUCCESS, request=running())
        assert time.monotonic() - started < LONG / 2
    finally:
        stopping.prepare()


@pytest.mark.parametrize("how", ["silent", "refused"])
def test_readers_wait_as_long_as_they_want_to(
    app: Celery, proxy: SilentProxy, direct: str, how: str
) -> None:
    """An outage is not the end of a ``get(timeout=...)``, of a group's, or of a look."""
    backend = app.backend
    results = [app.AsyncResult(name) for name in "abc"]
    for result in results:
        backend.store_result(result.id, 7, states.SUCCESS, request=running())
    group = app.GroupResult("group", results)
    group.save()
    address = (proxy.host, proxy.port)
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: app.AsyncResult("a").get(timeout=60),
        "get without": lambda: app.AsyncResult("a").get(),
        "state": lambda: app.AsyncResult("a").state,
        "group": lambda: app.GroupResult("group", results).get(timeout=60),
        "native": lambda: app.GroupResult("group", results).join_native(timeout=60),
        "join": lambda: app.GroupResult("group", results).join(timeout=60),
        "restore": lambda: len(app.GroupResult.restore("group") or ()),
    }
    found: dict[str, object] = {}

    def note(name: str) -> None:
        try:
            found[name] = calls[name]()
        except Exception as exc:
            found[name] = exc

    backend.store.engine.dispose()
    if how == "silent":
        proxy.silence()
    else:
        proxy.close()
    threads = [threading.Thread(target=note, args=(name,)) for name in calls]
    for thread in threads:
        thread.start()
    time.sleep(3)  # the length of the outage: longer than a statement may take
    assert not found
    again = None
    if how == "silent":
        proxy.resume()
    else:
        parsed = make_url(direct)
        again = SilentProxy(str(parsed.host), parsed.port or 0, at=address[1])
    for thread in threads:
        thread.join(LONG)
    assert found == {
        **dict.fromkeys(("get", "get without"), 7),
        "state": "SUCCESS",
        **dict.fromkeys(("group", "native", "join"), [7, 7, 7]),
        "restore": 3,
    }
    if again is not None:
        again.close()


def test_readers_give_up(app: Celery, proxy: SilentProxy) -> None:
    results = [app.AsyncResult(name) for name in "ab"]
    group = app.GroupResult("group", results)
    with pytest.raises(CeleryTimeoutError):
        results[0].get(timeout=0.1)
    proxy.close()
    reads: list[Callable[[], object]] = [
        lambda: results[0].get(timeout=1.5),
        lambda: group.get(timeout=1.5),
        lambda: group.join(timeout=1.5),
        lambda: results[0].state,
        lambda: app.GroupResult.restore("group"),
    ]
    with ThreadPoolExecutor(len(reads)) as pool:  # at once: some wait for ten seconds
        for waiting in [pool.submit(read) for read in reads]:
            assert isinstance(waiting.exception(LONG), BackendGetMetaError)


def brief_settings(url: str, folder: Path) -> dict[str, Any]:
    """A deployment's, that waits for the database for two seconds instead of ten."""
    return {
        "broker_url": f"embedded:///{folder}/b",
        "result_backend": f"toolbox+{url}?connect_timeout=2",
        "DATABASE_TIMEOUT": 2,
    }


def test_a_command_says_so(url: str, proxy: SilentProxy, tmp_path: Path) -> None:
    Ledger(url).upgrade()
    with closing(Deployment(tmp_path, brief_settings(url, tmp_path))) as deployment:
        proxy.silence()
        for command in (
            ["tasks"],
            ["ledger", "summary"],
            ["ledger", "prune", "--older-than", "1d"],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "celery", "-A", "proj", *command],
                env={**os.environ, **deployment.environ},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode != 0
            assert "database server runs" in done.stdout + done.stderr


@pytest.mark.parametrize("only_open", [True, False])
def test_a_worker_and_a_monitor(
    url: str, direct: str, proxy: SilentProxy, tmp_path: Path, only_open: bool
) -> None:
    """They say so, go on, and stop at once when they are asked to."""
    with closing(Deployment(tmp_path, brief_settings(url, tmp_path))) as deployment:
        worker, monitor = deployment.start("worker"), deployment.start("monitor")
        app = Celery("reader", backend=f"toolbox+{direct}", set_as_current=False)
        ledger = Ledger(direct)
        ids = [deployment.app.send_task("export.sleep", (1.0,)).id for _ in range(2)]
        wait_until(lambda: len(deployment.notes("sleeping")) == 2, what="two tasks that run")
        wait_until(lambda: len(ledger.find().tasks) == 2, what="two records")
        proxy.silence(only_open=only_open)
        ids += [deployment.app.send_task("export.add", (i, i)).id for i in range(4)]
        for process in (worker, monitor):
            process.wait_for_log("has not answered for", timeout=30)
        if only_open:
            for task_id in ids:
                app.AsyncResult(task_id).get(timeout=60)
            wait_until(lambda: len(ledger.find().tasks) == 6, timeout=60, what="six records")
            proxy.silence()
            ids.append(deployment.app.send_task("export.sleep", (0.1,)).id)
            wait_until(lambda: len(deployment.notes("sleeping")) == 3, 60, what="one more")
        for process in (worker, monitor):
            process.send_signal(signal.SIGTERM)
        for process in (worker, monitor):
            start = time.monotonic()
            process.wait(timeout=60)
            assert time.monotonic() - start < 15
            assert process.returncode == 0
        app.backend.store.engine.dispose()
        ledger.close()
