"""Databases that refuse for a while, or for good: tasks run, and nothing waits past a stop."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url

from tests.acceptance.deployment import Deployment
from tests.services import PrivatePostgres

READ_ONLY = "ALTER ROLE {} SET default_transaction_read_only = on"
WRITABLE = "ALTER ROLE {} RESET default_transaction_read_only"
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'"


@pytest.fixture
def owner(postgres_url: str) -> Iterator[Engine]:
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture
def role(owner: Engine) -> Iterator[str]:
    """A role that may do everything in the test's database."""
    name = f"role_{uuid.uuid4().hex[:8]}"
    with owner.connect() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN"))
        connection.execute(text(f"GRANT ALL ON SCHEMA public TO {name}"))
    yield name
    with owner.connect() as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))


def run(engine: Engine, *statements: str) -> None:
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.parametrize("deployment", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize("durable", [False, True])
def test_a_database_that_is_read_only_for_a_while(
    deployment: Deployment, owner: Engine, role: str, durable: bool
) -> None:
    """As after a failover, where the sessions stay on the server that is a replica now."""
    url = make_url(owner.url).set(username=role).render_as_string(hide_password=False)
    deployment.change(result_backend=f"toolbox+{url}", DURABLE=durable)
    worker = deployment.start("worker", "one", "-c", "2")
    monitor = deployment.start("monitor")
    assert deployment.app.send_task("export.add", (1, 1)).get(timeout=30) == 2
    # New sessions of the role are read-only, and stay so when the role is writable again.
    run(owner, READ_ONLY.format(role), END_SESSIONS.format(role))
    results = [deployment.app.send_task("export.add", (n, 1)) for n in range(6)]
    worker.wait_for_log("The start of task")
    monitor.wait_for_log("The ledger cannot be written")
    run(owner, WRITABLE.format(role))
    assert [one.get(timeout=40) for one in results] == [1, 2, 3, 4, 5, 6]
    deployment.wait_until(lambda: deployment.count() == 7, "the records")
    assert len(deployment.notes("ran")) == 7
    deployment.stop_all()


@pytest.mark.parametrize("deployment", ["rabbitmq"], indirect=True)
def test_a_role_that_may_not_insert(deployment: Deployment, owner: Engine, role: str) -> None:
    """For good: what a task returns is lost, loudly; that it runs is not."""
    deployment.ledger.upgrade()
    run(owner, f"GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
    url = make_url(owner.url).set(username=role).render_as_string(hide_password=False)
    deployment.change(result_backend=f"toolbox+{url}")
    worker = deployment.start("worker", "one")
    for number in range(3):
        deployment.app.send_task("export.add", (number, 1))
    deployment.wait_until(lambda: len(deployment.notes("ran")) == 3, "the runs")
    worker.wait_for_log("The SUCCESS of task .* is not stored: .*permission denied")
    deployment.stop_all()


@pytest.mark.parametrize("durable", [False, True])
def test_a_worker_that_holds_a_result_stops(
    rabbitmq_url: str, private_postgres: PrivatePostgres, tmp_path: Path, durable: bool
) -> None:
    settings = {
        "broker_url": rabbitmq_url,
        "result_backend": f"toolbox+{private_postgres.url}",
        "DURABLE": durable,
    }
    with closing(Deployment(tmp_path, settings)) as deployment:
        worker = deployment.start("worker", "one", "-c", "1")
        result = deployment.app.send_task("export.sleep", (1,))
        deployment.wait_until(lambda: deployment.notes("sleeping"), "its start")
        private_postgres.stop()
        worker.wait_for_log("Failed operation _store_result")
        begin = time.monotonic()
        assert worker.stop(timeout=40) == 0
        assert time.monotonic() - begin < 15
        worker.wait_for_log("The database is away and the worker stops: SUCCESS")
        private_postgres.start()
        if durable:
            deployment.start("worker", "two", "-c", "1")
            assert result.get(timeout=40) == 1
        assert len(deployment.notes("sleeping")) == 1 + durable
        deployment.stop_all()


@pytest.mark.parametrize("deployment", ["rabbitmq", "redis", "embedded"], indirect=True)
def test_runs_that_come_again_after_their_hard_time_limit(deployment: Deployment) -> None:
    deployment.start("worker", "one", "-c", "1")
    deployment.start("monitor")
    result = deployment.app.send_task("export.hang", (3,))
    assert result.get(timeout=60) == 3
    deployment.wait_until(lambda: deployment.count() == 1, "the record")
    found = deployment.ledger.attempts(result.id)
    assert [one.state for one in found] == ["RETRY", "RETRY", "SUCCESS"]
    assert [one.runtime for one in found[:2]] == [1, 1]
    assert all("TimeLimitExceeded" in str(one.error) for one in found[:2])
    task = deployment.ledger.get(result.id)
    assert task is not None and task.ran is not None and task.ran < 1
    deployment.stop_all()
