"""Fixtures: a broker and a database of one's own for each test, and the gateway's processes.

TEST_RABBITMQ_URL and TEST_POSTGRES_URL name the servers; default: this machine, standard ports.
TEST_RABBITMQ_CTL is the command of rabbitmqctl, which makes and removes virtual hosts.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import psycopg2
import pytest
from sms_gateway.local import Local
from sqlalchemy.engine import make_url

RABBITMQ = os.environ.get("TEST_RABBITMQ_URL") or "amqp://guest:guest@127.0.0.1:5672//"
POSTGRES = (
    os.environ.get("TEST_POSTGRES_URL") or "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres"
)
RABBITMQCTL = shlex.split(os.environ.get("TEST_RABBITMQ_CTL") or "rabbitmqctl")
GATEWAYS = pytest.StashKey[list[Local]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Show the ends of the logs of a failed test's processes."""
    report = yield
    if report.failed:
        for one in item.stash.get(GATEWAYS, []):
            for log in sorted(one.folder.glob("*.log")):
                text = log.read_text(errors="replace")[-4000:]
                report.sections.append((f"{log.name}", text))
    return report


def _fail(text: str, error: object) -> NoReturn:
    raise pytest.fail.Exception(f"{text}\n{' '.join(str(error).split())[:300]}", pytrace=False)


@pytest.fixture(scope="session")
def rabbitmqctl() -> Callable[..., None]:
    """Runs a sub-command of rabbitmqctl; the test fails, with the remedy, where it does not."""

    def control(*arguments: str) -> None:
        try:
            done = subprocess.run(
                [*RABBITMQCTL, "-q", *arguments], capture_output=True, text=True, timeout=60
            )
            problem = done.stdout + done.stderr if done.returncode else ""
        except OSError as error:
            problem = str(error)
        if problem:
            _fail(
                "RabbitMQ cannot be used: start it, name it by TEST_RABBITMQ_URL, and its"
                " rabbitmqctl by TEST_RABBITMQ_CTL.",
                problem,
            )

    return control


@pytest.fixture
def rabbitmq_url(rabbitmqctl: Callable[..., None]) -> Iterator[str]:
    """The URL of a fresh virtual host."""
    parts = urlsplit(RABBITMQ)
    name = f"sms-test-{uuid.uuid4().hex}"
    rabbitmqctl("add_vhost", name)
    rabbitmqctl("set_permissions", "-p", name, parts.username or "guest", ".*", ".*", ".*")
    yield f"{parts.scheme}://{parts.netloc}/{name}"
    rabbitmqctl("delete_vhost", name)


@pytest.fixture(scope="session")
def postgres() -> Callable[[str], None]:
    """Runs a statement as the administrator; the test fails, with the remedy, where it cannot."""
    admin = make_url(POSTGRES)

    def execute(statement: str) -> None:
        try:
            connection = psycopg2.connect(
                host=admin.host,
                port=admin.port,
                user=admin.username,
                password=admin.password,
                dbname=admin.database,
                connect_timeout=5,
            )
        except psycopg2.Error as error:
            _fail("PostgreSQL cannot be used: start it, or set TEST_POSTGRES_URL.", error)
        with closing(connection):
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)

    return execute


@pytest.fixture
def postgres_url(postgres: Callable[[str], None]) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"sms_test_{uuid.uuid4().hex}"
    postgres(f'CREATE DATABASE "{name}" TEMPLATE template0')
    url = make_url(POSTGRES).set(database=name)
    yield url.render_as_string(hide_password=False)
    postgres(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Local]]:
    """Makes the gateway's processes, with settings as given; ends them all after the test."""
    made: list[Local] = []
    request.node.stash[GATEWAYS] = made

    def make(**environ: str) -> Local:
        folder = tmp_path / f"gateway{len(made)}"
        folder.mkdir()
        made.append(Local(folder, environ))
        return made[-1]

    yield make
    for one in made:
        one.stop(timeout=10)
        one.http.clear()


@pytest.fixture
def on_servers(rabbitmq_url: str, postgres_url: str) -> dict[str, str]:
    """The settings for RabbitMQ and PostgreSQL."""
    return {"CELERY_BROKER_URL": rabbitmq_url, "SMS_DATABASE_URL": postgres_url}
