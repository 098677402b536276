"""No password reaches a log, at the most talkative level, not even where everything fails."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg2
import pytest

from tests.acceptance.deployment import Deployment
from tests.services import PrivatePostgres, PrivateRabbitMQ

#: Both have characters that have to be quoted in a URL.
BROKER_PASSWORD = "brok/er@:%hunter1"
DATABASE_PASSWORD = "data/base@:%hunter2"
SECRETS = [
    form
    for word in (BROKER_PASSWORD, DATABASE_PASSWORD)
    for form in (word, quote(word, safe=""), quote(word), "hunter")
]


@pytest.fixture
def guarded(
    private_rabbitmq: PrivateRabbitMQ, private_postgres: PrivatePostgres, tmp_path: Path
) -> Iterator[Deployment]:
    """A deployment whose broker and database want passwords."""
    broker, database = urlsplit(private_rabbitmq.url), urlsplit(private_postgres.url)
    vhost = broker.path[1:]
    control = private_rabbitmq.control

    def run(*words: str) -> None:
        subprocess.run([*control, *words], check=True, capture_output=True)

    run("add_user", "worker", BROKER_PASSWORD)
    run("set_permissions", "-p", vhost, "worker", ".*", ".*", ".*")
    name = database.path[1:]
    role = f"guarded_{name}"
    connection = psycopg2.connect(
        host=database.hostname, port=database.port, user=database.username, dbname=name
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {role} LOGIN PASSWORD %s", (DATABASE_PASSWORD,))
        cursor.execute(f"GRANT ALL ON SCHEMA public TO {role}")
    connection.close()
    secret = quote(DATABASE_PASSWORD, safe="")
    found = Deployment(
        tmp_path,
        {
            "broker_url": f"amqp://worker:{quote(BROKER_PASSWORD, safe='')}"
            f"@{broker.hostname}:{broker.port}/{vhost}",
            "result_backend": f"toolbox+postgresql+psycopg2://{role}:{secret}"
            f"@{database.hostname}:{database.port}/{name}",
        },
    )
    yield found
    found.close()
    run("delete_user", "worker")


def assert_no_secret(deployment: Deployment, *others: str) -> None:
    texts = {name: process.log_text() for name, process in deployment.processes.items()}
    for number, other in enumerate(others):
        texts[str(number)] = other
    for name, shown in texts.items():
        assert shown, name
        for secret in SECRETS:
            assert secret not in shown, f"{secret} in {name}"


def test_no_log_line_has_a_password(
    guarded: Deployment, private_rabbitmq: PrivateRabbitMQ, private_postgres: PrivatePostgres
) -> None:
    monitor = guarded.start("monitor", "", "-l", "DEBUG")
    worker = guarded.start("worker", "one", "-l", "DEBUG")
    made = guarded.produce("everything", 10)
    guarded.wait_for_quiet(made["chord"], made["chain"])
    private_postgres.stop()
    guarded.app.send_task("export.add", (1, 2))
    monitor.wait_for_log("The ledger cannot be written")
    private_rabbitmq.stop()
    monitor.wait_for_log("The broker is away")
    worker.wait_for_log("(?i)connection .*(lost|error|refused)")
    private_postgres.start()
    private_rabbitmq.start()
    shown = [repr(guarded.app.conf), repr(guarded.ledger), repr(guarded.app._config_source)]
    assert_no_secret(guarded, *shown[1:])


def test_a_refused_password_is_not_repeated(
    guarded: Deployment, private_rabbitmq: PrivateRabbitMQ
) -> None:
    wrong = "amqp://worker:hunter0@" + guarded.settings["broker_url"].rpartition("@")[2]
    guarded.change(broker_url=wrong)
    monitor = guarded.start("monitor", "", "-l", "DEBUG", ready="The broker is away")
    worker = guarded.start("worker", "one", "-l", "DEBUG", ready="(?i)refused")
    assert monitor.running
    assert_no_secret(guarded)
    assert worker.pid
