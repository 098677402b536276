"""The result backend under real workers."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url

from tests.acceptance.deployment import Deployment
from tests.services import PrivatePostgres

README = Path(__file__).parents[2] / "README.rst"
#: The whole size takes a minute or more: TEST_FULL=1.
TASKS = 8000 if os.environ.get("TEST_FULL") else 1600


def query(url: str, sql: str) -> list[tuple[object, ...]]:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            found = connection.execute(text(sql))
            return [tuple(row) for row in found] if found.returns_rows else []
    finally:
        engine.dispose()


def states(url: str) -> dict[object, object]:
    rows = query(url, "SELECT status, count(*) FROM celery_taskmeta GROUP BY status")
    return {status: count for status, count in rows}


@pytest.mark.slow
@pytest.mark.parametrize("deployment", ["rabbitmq"], indirect=True)
def test_four_workers_start_at_once_on_an_empty_database(
    deployment: Deployment, postgres_url: str
) -> None:
    for _ in range(TASKS):
        deployment.app.send_task("export.add", (1, 1))
    with ThreadPoolExecutor(4) as pool:  # whose threads outlive the workers that they start
        workers = list(pool.map(lambda n: deployment.start("worker", f"w{n}", "-c", "2"), range(4)))
        deployment.wait_until(lambda: states(postgres_url) == {"SUCCESS": TASKS}, "results", 170)
        held = query(
            postgres_url,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'cadasta-workertoolbox'",
        )
        # One for each of the eight pool processes, and none for their four parents.
        assert held[0][0] == 8
        for worker in workers:
            assert "ERROR" not in worker.log_text()
            assert "Traceback" not in worker.log_text()
        deployment.stop_all()


def test_a_restart_of_the_database_costs_no_result(
    on_private_postgres: Deployment, private_postgres: PrivatePostgres
) -> None:
    deployment = on_private_postgres
    deployment.start("worker", "one")
    for _ in range(600):
        deployment.app.send_task("export.add", (1, 1))
    deployment.wait_until(lambda: states(private_postgres.url).get("SUCCESS", 0), "the first")
    private_postgres.stop()
    time.sleep(5)  # the length of the outage: longer than a start is tried to be noted
    private_postgres.start()
    deployment.wait_until(lambda: states(private_postgres.url) == {"SUCCESS": 600}, "results", 90)
    assert len(deployment.notes("ran")) == 600
    deployment.stop_all()


@pytest.mark.parametrize("deployment", ["rabbitmq", "embedded"], indirect=True)
def test_results_that_are_hard_to_store(deployment: Deployment) -> None:
    deployment.start("worker", "one", "-c", "1")
    bad, big, strange, good = (
        deployment.app.send_task(name, (argument,))
        for name, argument in (
            ("export.give", "nothing json"),
            ("export.give", "five mib"),
            ("export.give", "unknown"),
            ("data.sync.double", 4),
        )
    )
    assert good.get(timeout=30) == 8
    # Its queue is another one than the others': it may have come first.
    assert "EncodeError" in repr(bad.get(timeout=30, propagate=False))
    assert bad.state == "FAILURE"
    assert len(big.get(timeout=30)) == 5 * 1024 * 1024
    with pytest.raises(Exception, match="never heard of") as caught:
        strange.get(timeout=30)
    assert type(caught.value).__name__ == "OnlyHereError"


@pytest.fixture
def roles(postgres_url: str) -> Iterator[dict[str, str]]:
    """The URLs of three roles that have the rights that the README grants, and no others."""
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    suffix = uuid.uuid4().hex[:8]
    names = {kind: f"{kind}_{suffix}" for kind in ("worker", "monitor", "reader")}
    address = make_url(postgres_url)
    with engine.connect() as connection:
        for name in names.values():
            connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'"))
    yield {
        kind: address.set(username=name, password="pw").render_as_string(hide_password=False)
        for kind, name in names.items()
    }
    with engine.connect() as connection:
        for name in names.values():
            connection.execute(text(f"DROP OWNED BY {name}"))
            connection.execute(text(f"DROP ROLE {name}"))
    engine.dispose()


def grant_as_documented(engine: Engine, roles: dict[str, str]) -> None:
    grants = re.findall(r"^ +(GRANT .* TO (\w+);)$", README.read_text(), re.M)
    assert {kind for _, kind in grants} == set(roles)
    with engine.begin() as connection:
        for statement, kind in grants:
            name = make_url(roles[kind]).username
            connection.execute(text(statement.replace(f" TO {kind};", f" TO {name}")))


@pytest.mark.parametrize("deployment", ["rabbitmq"], indirect=True)
def test_each_process_has_the_rights_that_it_needs_alone(
    deployment: Deployment, postgres_url: str, roles: dict[str, str]
) -> None:
    deployment.ledger.upgrade()
    engine = create_engine(postgres_url)
    grant_as_documented(engine, roles)
    engine.dispose()
    deployment.change(result_backend=f"toolbox+{roles['worker']}", LEDGER_URL=roles["monitor"])
    monitor = deployment.start("monitor")
    worker = deployment.start("worker", "one")
    retried = deployment.app.send_task("export.retry", (2,))
    done = deployment.app.send_task("export.add", (1, 2))
    assert done.get(timeout=30) == 3
    assert retried.get(timeout=30) == 2
    deployment.wait_until(lambda: deployment.count() == 2, "two records")
    found = deployment.ledger.attempts(retried.id)
    assert [(one.retries, one.state) for one in found] == [
        (0, "RETRY"),
        (1, "RETRY"),
        (2, "SUCCESS"),
    ]
    assert all(one.worker == "one@test" and one.runtime is not None for one in found)
    for process in (monitor, worker):
        assert process.stop(timeout=30) == 0
        assert "rmission denied" not in process.log_text()
        assert "WARNING" not in process.log_text()
