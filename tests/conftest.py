"""Fixtures for all tests: services of one's own, and child processes."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

import pytest
import redis

from tests.services import (
    SERVICES,
    MissingProgram,
    MotoServer,
    PrivatePostgres,
    PrivateRabbitMQ,
    PrivateRedis,
    Process,
    Server,
    VhostPool,
    connect_once,
    create_database,
    drop_database,
    vhosts_for,
)

#: Which service a fixture needs: for the marker, and to keep private servers in one process.
FIXTURE_SERVICES = {
    "rabbitmq_url": "rabbitmq",
    "private_rabbitmq": "rabbitmq",
    "postgres_url": "postgres",
    "private_postgres": "postgres",
    "redis_url": "redis",
    "private_redis": "redis",
    "mariadb_url": "mariadb",
    "sqs_endpoint": "sqs",
}
PRIVATE_SERVERS = {"private_rabbitmq", "private_postgres"}

#: Settings of whoever runs the tests, which the toolbox, Celery or boto3 would obey.
FOREIGN_VARIABLES = ("AWS_", "CELERY_", "SENTRY_")

PROCESSES = pytest.StashKey[list[Process]]()


def pytest_configure(config: pytest.Config) -> None:
    """Forget the settings of whoever runs the tests; have helpers' assertions explained as well."""
    modules = {f"tests.{path.stem}" for path in Path(__file__).parent.iterdir()}
    pytest.register_assert_rewrite(*sorted(modules - sys.modules.keys()))
    for name in list(os.environ):
        if name.startswith(FOREIGN_VARIABLES) and name != "AWS_CA_BUNDLE":
            del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests with the services they need; keep users of a private server together."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        for name in sorted({FIXTURE_SERVICES[one] for one in fixtures & FIXTURE_SERVICES.keys()}):
            item.add_marker(pytest.mark.service(name))
        for name in sorted(fixtures & PRIVATE_SERVERS)[:1]:
            item.add_marker(pytest.mark.xdist_group(name))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of a failed test's processes."""
    report = yield
    if report.failed:
        for process in item.stash.get(PROCESSES, []):
            report.sections.append((f"Log of {process.name}", process.log_tail(200)))
    return report


def _fail(name: str, error: BaseException) -> NoReturn:
    reason = " ".join(str(error).split())[:300]
    message = f"{SERVICES[name].remedy()}.\n{type(error).__name__}: {reason}"
    raise pytest.fail.Exception(message, pytrace=False) from None


@pytest.fixture(scope="session")
def vhost_pool() -> Iterator[VhostPool]:
    """Makes virtual hosts on the shared RabbitMQ; deletes them at the end."""
    url = SERVICES["rabbitmq"].url
    try:
        connect_once(url)
        pool = VhostPool(vhosts_for(url), url, batch=4)
    except Exception as error:  # Any: it says why there is none.
        _fail("rabbitmq", error)
    yield pool
    pool.close()


@pytest.fixture
def rabbitmq_url(vhost_pool: VhostPool) -> Iterator[str]:
    """The URL of a fresh virtual host on the shared RabbitMQ."""
    try:
        url = vhost_pool.take()
    except Exception as error:
        _fail("rabbitmq", error)
    yield url
    vhost_pool.give_back(url)


def _database(name: str) -> Iterator[str]:
    admin_url = SERVICES[name].url
    try:
        url = create_database(admin_url)
    except Exception as error:
        _fail(name, error)
    yield url
    drop_database(admin_url, url)


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL (``postgresql+psycopg2://``) of an empty database on the shared PostgreSQL."""
    yield from _database("postgres")


@pytest.fixture
def mariadb_url() -> Iterator[str]:
    """The URL (``mysql+pymysql://``) of an empty database on the shared MariaDB."""
    yield from _database("mariadb")


@pytest.fixture(scope="session")
def redis_url() -> str:
    """The URL of the shared Redis: write below ``redis_prefix`` only."""
    service = SERVICES["redis"]
    problem = service.problem()
    if problem is not None:
        pytest.fail(f"{service.remedy()}.\n{problem}", pytrace=False)
    return service.url


@pytest.fixture
def redis_prefix(redis_url: str) -> Iterator[str]:
    """A prefix for the keys of this test (kombu's ``global_keyprefix``), deleted afterwards."""
    prefix = f"toolbox-test-{uuid.uuid4().hex}:"
    yield prefix
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter(match=f"{prefix}*", count=1000):
            client.delete(key)


@pytest.fixture(scope="session")
def sqs_endpoint() -> Iterator[str]:
    """``http://127.0.0.1:port`` of moto's server, which plays SQS for this test process."""
    with MotoServer() as server:
        yield server.url


@pytest.fixture
def sqs_environment(sqs_endpoint: str) -> dict[str, str]:
    """The variables with which boto3 and ``sqs://`` reach it: for subprocesses or monkeypatch."""
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-west-2",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_ENDPOINT_URL_SQS": sqs_endpoint,
    }


@pytest.fixture
def sqs_prefix(sqs_endpoint: str) -> str:
    """A ``queue_name_prefix`` of this test."""
    return f"test-{uuid.uuid4().hex[:12]}-"


def _private(kind: type[Server]) -> Iterator[Server]:
    try:
        kind.path()
    except MissingProgram as error:
        _fail(kind.name, error)
    with kind() as server:
        yield server


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[Server]:
    """The server behind ``private_postgres``."""
    yield from _private(PrivatePostgres)


@pytest.fixture(scope="module")
def rabbitmq_server() -> Iterator[Server]:
    """The server behind ``private_rabbitmq``."""
    yield from _private(PrivateRabbitMQ)


@pytest.fixture
def private_redis() -> Iterator[Server]:
    """An empty Redis that runs and that the test may stop, freeze or demote."""
    yield from _private(PrivateRedis)


@pytest.fixture
def private_postgres(postgres_server: PrivatePostgres) -> PrivatePostgres:
    """A PostgreSQL that runs and that the test may stop; ``url`` is an empty database."""
    if not postgres_server.running:
        postgres_server.start()
    postgres_server.use_fresh_database()
    return postgres_server


@pytest.fixture
def private_rabbitmq(rabbitmq_server: PrivateRabbitMQ) -> PrivateRabbitMQ:
    """A RabbitMQ that runs and that the test may stop; ``url`` is a fresh virtual host."""
    if not rabbitmq_server.running:
        rabbitmq_server.start()
    rabbitmq_server.use_fresh_vhost()
    return rabbitmq_server


class StartProcess(Protocol):
    """How tests start a child process."""

    def __call__(
        self,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        name: str | None = None,
    ) -> Process:
        """Start it; ``env`` is set beside this process's variables."""


@pytest.fixture
def run_process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartProcess]:
    """Start child processes; they are stopped after the test, their logs shown if it fails."""
    processes: list[Process] = request.node.stash.setdefault(PROCESSES, [])

    def start(
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        name: str | None = None,
    ) -> Process:
        label = name or Path(command[0]).name
        log = tmp_path / f"{len(processes)}-{label.replace(os.sep, '_').replace(' ', '_')}.log"
        process = Process(command, log, name=label, env=env, cwd=cwd)
        processes.append(process)
        return process.start()

    yield start
    _stop_all(processes)


def _stop_all(processes: Sequence[Process]) -> None:
    for process in processes:  # Ask all before waiting for any.
        if process.running:
            process.send_signal(process.stop_signal)
    for process in processes:
        process.stop()


@pytest.fixture
def run_celery(run_process: StartProcess) -> Callable[..., Process]:
    """Start ``celery`` with these arguments, as ``run_process`` does."""

    def start(
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        name: str | None = None,
    ) -> Process:
        return run_process(
            *(sys.executable, "-m", "celery", *arguments),
            env={"PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=cwd,
            name=name or f"celery {' '.join(arguments)}"[:40],
        )

    return start
