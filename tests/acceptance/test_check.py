"""``celery check`` on a healthy deployment, and on one with each fault made for real."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kombu import Exchange, Queue
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from cadasta.workertoolbox import setup_app
from tests.acceptance.deployment import Deployment
from tests.services.rabbitmq import PrivateRabbitMQ


def check(deployment: Deployment, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Return the exit code and the findings by their subject."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "proj", "check", "--json", *options],
        env={**os.environ, **deployment.environ},
        cwd=deployment.folder,
        capture_output=True,
        text=True,
        timeout=90,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert found or done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, {finding["subject"]: finding for finding in found}


def errors(found: dict[str, dict[str, str]]) -> dict[str, str]:
    for finding in found.values():
        assert bool(finding["remedy"]) == (finding["level"] != "ok"), finding
    return {name: one["text"] for name, one in found.items() if one["level"] == "error"}


@pytest.mark.parametrize("deployment", ["rabbitmq", "sqs", "redis", "embedded"], indirect=True)
def test_a_healthy_deployment(deployment: Deployment) -> None:
    deployment.start("monitor")
    deployment.start("worker", "one")
    code, found = check(deployment)
    assert (code, errors(found)) == (0, {})
    assert {"broker", "queue export", "queue platform.fifo", "monitor", "ledger", "results"} <= set(
        found
    )
    assert found["monitor"]["text"].startswith("it records")
    # Nothing ran, and nothing is left to be done.
    assert deployment.notes("ran") == []
    assert "ERROR" not in deployment.processes["workerone"].log_text()
    deployment.stop_all()


@pytest.mark.parametrize("deployment", ["rabbitmq"], indirect=True)
def test_what_nobody_has_set_up_and_nobody_runs(deployment: Deployment) -> None:
    code, found = check(deployment, "--timeout", "1")
    assert code == 1
    assert "NOT_FOUND" in errors(found)["queue export"]
    assert "missing" in errors(found)["ledger"]
    setup_app(deployment.app)
    code, found = check(deployment, "--timeout", "1")
    assert code == 1
    assert set(errors(found)) == {"monitor"}
    assert "not recorded within 1 s" in errors(found)["monitor"]
    assert found["workers"]["level"] == "warning"


@pytest.mark.parametrize("deployment", ["rabbitmq", "redis", "embedded"], indirect=True)
def test_tasks_that_nobody_takes(deployment: Deployment) -> None:
    deployment.start("monitor")
    deployment.start("worker", "one", "-Q", "export")
    deployment.app.send_task("unlisted.name", (1,))
    done = deployment.app.send_task("export.add", (1, 1))
    assert done.get(timeout=30) == 2
    code, found = check(deployment)
    assert (code, errors(found)) == (0, {})
    assert "messages of export" not in found and "messages of data.sync" not in found
    assert found["messages of celery"]["level"] == "warning"
    assert "1 wait, and no worker" in found["messages of celery"]["text"]
    assert "-Q celery" in found["messages of celery"]["remedy"]


def bind_wrong(deployment: Deployment) -> Exchange:
    """Give one queue a foreign binding and take its own from another; return their exchange."""
    exchange = deployment.app.conf.task_queues[0].exchange
    with deployment.app.connection_for_write() as connection:
        channel = connection.default_channel
        Queue("export", exchange, routing_key="data.sync")(channel).queue_bind()
        Queue("celery")(channel).unbind_from(exchange, routing_key="celery")
    return exchange


@pytest.mark.parametrize("deployment", ["rabbitmq"], indirect=True)
def test_queues_that_are_bound_wrong(deployment: Deployment) -> None:
    setup_app(deployment.app)
    deployment.start("monitor")
    exchange = bind_wrong(deployment)
    code, found = check(deployment)
    assert code == 1
    assert errors(found) == {
        "queue export": "also bound to task_exchange by ['data.sync']: it gets other queues' tasks",
        "queue celery": "not bound to task_exchange by 'celery': no probe came",
    }
    with deployment.app.connection_for_write() as connection:
        Queue("celery")(connection.default_channel).delete()
        Queue("celery", exchange, routing_key="celery", queue_arguments={"x-max-length": 5})(
            connection.default_channel
        ).declare()
    code, found = check(deployment)
    assert "PRECONDITION_FAILED" in errors(found)["queue celery"]


@pytest.fixture
def managed(postgres_url: str, tmp_path: Path) -> Iterator[Deployment]:
    """The project on a RabbitMQ server with its management plugin."""
    with PrivateRabbitMQ(plugins=("rabbitmq_management",)) as server:
        settings = {
            "broker_url": server.root_url,
            "result_backend": f"toolbox+{postgres_url}",
            "MANAGEMENT_URL": server.management_url,
        }
        with closing(Deployment(tmp_path, settings)) as deployment:
            yield deployment


@pytest.mark.slow
def test_bindings_are_read_while_workers_consume(managed: Deployment) -> None:
    managed.start("monitor")
    managed.start("worker", "one")
    code, found = check(managed)
    assert (code, errors(found)) == (0, {})
    assert found["queue export"]["text"] == "bound to task_exchange by 'export'"
    bind_wrong(managed)
    code, found = check(managed)
    assert code == 1
    assert errors(found) == {
        "queue export": "also bound to task_exchange by ['data.sync']: it gets other queues' tasks",
        "queue celery": "not bound to task_exchange by 'celery', only by []",
    }


@pytest.mark.parametrize("deployment", ["redis", "embedded"], indirect=True)
def test_a_binding_that_is_missing_or_foreign(deployment: Deployment) -> None:
    setup_app(deployment.app)
    deployment.start("monitor")
    exchange = deployment.app.conf.task_queues[0].exchange
    with deployment.app.connection_for_write() as connection:
        channel = connection.default_channel
        Queue("export", exchange, routing_key="data.sync")(channel).declare()
    code, found = check(deployment)
    assert code == 1
    assert "also bound" in errors(found)["queue export"]


@pytest.mark.parametrize("deployment", ["rabbitmq"], indirect=True)
def test_rights_and_formats_in_the_database(deployment: Deployment, postgres_url: str) -> None:
    setup_app(deployment.app)
    deployment.start("monitor")
    role = "reader_" + Path(make_url(postgres_url).database or "").name[-8:]
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'"))
        try:
            tables = "celery_task, celery_taskmeta, celery_task_attempt"  # as in the README
            connection.execute(text(f"GRANT SELECT ON {tables} TO {role}"))
            connection.execute(
                text(
                    "INSERT INTO celery_taskmeta (id, task_id, status, result, date_done)"
                    " VALUES (nextval('task_id_sequence'), 'old', 'SUCCESS', :result, now())"
                ),
                {"result": pickle.dumps(1)},
            )
            url = make_url(postgres_url).set(username=role, password="hunter2")
            reader = url.render_as_string(hide_password=False)
            deployment.change(result_backend=f"toolbox+{reader}", LEDGER_URL=reader)
            code, found = check(deployment)
        finally:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
    engine.dispose()
    assert code == 1
    assert set(errors(found)) == {
        "rights on the results",
        "rights on the ledger",
        "results' format",
    }
    assert "GRANT SELECT, INSERT" in found["rights on the results"]["remedy"]
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("deployment", "settings", "subject", "words"),
    [
        ("redis", {"TIME_LIMIT": 7200}, "visibility timeout", "not above"),
        ("embedded", {"accept_content": ["json", "pickle"]}, "serializers", "accepts pickle"),
        ("rabbitmq", {"broker_url": "amqp://guest:hunter2@127.0.0.1:1//"}, "broker", "refused"),
        (
            "embedded",
            {"result_backend": "toolbox+postgresql://u:hunter2@127.0.0.1:1/x"},
            "results",
            "refused",
        ),
    ],
    indirect=["deployment"],
)
def test_settings_that_cannot_work(
    deployment: Deployment, settings: dict[str, Any], subject: str, words: str
) -> None:
    if "TIME_LIMIT" in settings:
        options = {**deployment.settings["broker_transport_options"], "visibility_timeout": 3600}
        settings = {"broker_transport_options": options, "task_time_limit": 7200}
    deployment.change(**settings)
    code, found = check(deployment, "--timeout", "1")
    assert code == 1
    assert words in errors(found)[subject]
    assert "hunter2" not in str(found)


@pytest.mark.parametrize("deployment", ["sqs"], indirect=True)
def test_a_list_of_sqs_queues_without_the_monitor_queue(deployment: Deployment) -> None:
    options = deployment.settings["broker_transport_options"]
    del options["queue_name_prefix"]
    queues = {name: {"url": f"http://localhost/1/{name}"} for name in ("export", "data-sync")}
    deployment.change(broker_transport_options={**options, "predefined_queues": queues})
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "proj", "check"],
        env={**os.environ, **deployment.environ},
        cwd=deployment.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "predefined_queues" in done.stderr + done.stdout
    assert "platform.fifo" in done.stderr + done.stdout


@pytest.mark.parametrize("deployment", ["redis"], indirect=True)
def test_a_redis_that_evicts(deployment: Deployment, evicting_redis: str) -> None:
    deployment.change(broker_url=evicting_redis)
    code, found = check(deployment, "--timeout", "1")
    assert code == 1
    assert "allkeys-lru" in errors(found)["Redis's memory"]
