"""The result backend and the ledger on servers that change between primary and replica."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, states
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from cadasta.workertoolbox import Ledger, LedgerError
from cadasta.workertoolbox.messages.decoding import TaskRecord
from tests.acceptance.deployment import Deployment
from tests.result_contract import request
from tests.services import PrivateMariaDB, PrivatePostgres


class Standby(PrivatePostgres):
    """A hot standby of another private server."""

    def __init__(self, primary: PrivatePostgres) -> None:
        super().__init__()
        self.primary = primary

    def prepare(self) -> None:
        self.run(
            *(self.path("pg_basebackup"), "--pgdata", "data", "--write-recovery-conf", "--no-sync"),
            *("--host", "127.0.0.1", "--port", str(self.primary.port), "--username", "postgres"),
            *("--checkpoint", "fast"),
        )


def run(url: str, statement: str) -> Any:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        found = connection.execute(text(statement))
        value = found.scalar() if found.returns_rows else None
    engine.dispose()
    return value


def test_a_failover_to_a_hot_standby(rabbitmq_url: str, tmp_path: Path) -> None:
    """The sessions that a worker opens before the standby is promoted take no writes."""
    with PrivatePostgres() as primary:
        primary.use_fresh_database()
        name = make_url(primary.url).database
        Ledger(primary.url).upgrade()
        with Standby(primary) as standby:
            hosts = "&".join(f"host=127.0.0.1:{one.port}" for one in (primary, standby))
            url = f"toolbox+postgresql+psycopg2://postgres@/{name}?{hosts}"
            settings = {"broker_url": rabbitmq_url, "result_backend": url}
            with closing(Deployment(tmp_path, settings)) as deployment:
                worker = deployment.start("worker", "one")
                assert deployment.app.send_task("export.add", (1, 1)).get(timeout=30) == 2
                primary.kill()
                results = [deployment.app.send_task("export.add", (n, 1)) for n in range(20)]
                worker.wait_for_log("The start of task .* read-only transaction")
                run(standby.admin_url, "SELECT pg_promote()")
                assert [one.get(timeout=60) for one in results] == list(range(1, 21))
                assert len(deployment.notes("ran")) == 21
                deployment.stop_all()


@pytest.fixture(scope="module")
def mariadb() -> Iterator[PrivateMariaDB]:
    with PrivateMariaDB() as server:
        run(server.url, "CREATE DATABASE results")
        run(server.url, "CREATE USER app@localhost")
        run(server.url, "CREATE USER app@127.0.0.1")
        for host in ("localhost", "127.0.0.1"):
            run(server.url, f"GRANT ALL ON results.* TO app@{host}")
        yield server


@pytest.mark.parametrize("how", ["the server", "the session"])
def test_a_mariadb_that_is_read_only_for_a_while(
    mariadb: PrivateMariaDB, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """1290 of the server, 1792 of a session that began while its default was so."""
    setting = "read_only" if how == "the server" else "tx_read_only"
    url = make_url(mariadb.url).set(username="app", database="results")
    address = url.render_as_string(hide_password=False)
    app = Celery("readonly", backend=f"toolbox+{address}", set_as_current=False)
    app.backend.store_result(how, {}, "PROGRESS", request=request())
    app.backend.store.engine.dispose()
    with Ledger(address) as ledger:
        ledger.upgrade()
        ledger.close()
        run(mariadb.url, f"SET GLOBAL {setting} = 1")
        try:
            app.backend.store_result(how, {}, states.STARTED, request=request())
            assert "The start of task" in caplog.text
            with pytest.raises(LedgerError):
                ledger.record([TaskRecord(task_id=how, name="a")])
            args = (how, 5, states.SUCCESS)
            storing = threading.Thread(
                target=app.backend.store_result, args=args, kwargs={"request": request()}
            )
            storing.start()
            assert app.backend.get_state(how) == "PROGRESS"
        finally:
            run(mariadb.url, f"SET GLOBAL {setting} = 0")
        storing.join(30)
        assert app.backend.get_result(how) == 5
        ledger.record([TaskRecord(task_id=how, name="a")])
        assert ledger.get(how) is not None
    app.backend.store.engine.dispose()
