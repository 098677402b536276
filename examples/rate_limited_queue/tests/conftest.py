"""Fixtures: a key prefix on a real Redis, and servers as users start them.

``TEST_REDIS_URL`` names a Redis (default that on the standard port); each test has keys of its own
on it and removes them. Tests that stop Redis start one of their own.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery
from rate_limited_queue import LimitedTask
from rate_limited_queue.client import Client
from rate_limited_queue.processes import Child, running_server

from cadasta.workertoolbox import Config, Ledger

PROJECT = Path(__file__).parent / "project"
#: The tasks of the project.
TASKS = (
    *("send", "slow", "fail", "again", "end", "often", "named", "apart", "auto", "turn", "die"),
)
REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/0")


@pytest.fixture(autouse=True)
def _no_foreign_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("RLQ_", "CELERY_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_client() -> Iterator[redis.Redis]:
    """A client of the shared Redis."""
    with redis.Redis.from_url(REDIS_URL) as client:
        try:
            client.ping()
        except redis.RedisError as error:
            pytest.fail(
                f"No Redis answers at {REDIS_URL} ({error}): start one, or set TEST_REDIS_URL.",
                pytrace=False,
            )
        yield client


@contextlib.contextmanager
def key_prefix(client: redis.Redis) -> Iterator[str]:
    """A prefix for keys, which are removed afterwards."""
    name = f"rlq-test-{uuid.uuid4().hex[:12]}"
    yield name
    for key in client.scan_iter(match=f"{name}*", count=1000):
        client.unlink(key)


@pytest.fixture
def prefix(redis_client: redis.Redis) -> Iterator[str]:
    """How the keys of this test begin; they are removed afterwards."""
    with key_prefix(redis_client) as name:
        yield name


def redis_environ(prefix: str) -> dict[str, str]:
    """The settings of a server or a program on the shared Redis."""
    parts = urlsplit(REDIS_URL)
    found = {
        "RLQ_REDIS_CONN_TYPE": "tcp_sock",
        "RLQ_REDIS_HOST": parts.hostname or "127.0.0.1",
        "RLQ_REDIS_PORT": str(parts.port or 6379),
        "RLQ_REDIS_DB": parts.path.strip("/") or "0",
        "RLQ_REDIS_KEY_PREFIX": prefix,
        "RLQ_SHARQ_JOB_REQUEUE_INTERVAL": "50",
    }
    if parts.password:
        found["RLQ_REDIS_PASSWORD"] = parts.password
    return found


@pytest.fixture
def environ(prefix: str) -> dict[str, str]:
    """The settings of a server or a program of this test."""
    return redis_environ(prefix)


@pytest.fixture
def start_server(tmp_path: Path, environ: dict[str, str]) -> Iterator[Callable[..., str]]:
    """Start servers; each call returns the URL of another one."""
    with contextlib.ExitStack() as stack:

        def start(*options: str, **settings: object) -> str:
            changed = {name: str(value) for name, value in settings.items()}
            return stack.enter_context(running_server(tmp_path, {**environ, **changed}, *options))

        yield start


@pytest.fixture
def client(start_server: Callable[..., str]) -> Iterator[Client]:
    """A client of a server with the default settings."""
    with Client(start_server()) as found:
        yield found


@pytest.fixture(scope="module")
def shared_client(
    redis_client: redis.Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A client of a server that the tests of a module share, for calls that leave nothing."""
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(key_prefix(redis_client))
        folder = tmp_path_factory.mktemp("server")
        url = stack.enter_context(running_server(folder, redis_environ(name)))
        yield stack.enter_context(Client(url))


def wait_until(condition: Callable[[], object], what: str, timeout: float = 40) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s in vain for {what}"
        time.sleep(0.05)


def nothing() -> None:
    """Stands for the tasks of the project in the producer's app."""


class Deployment:
    """The project of ``tests/project``, and the processes that it has."""

    #: Waits for a condition; for tests.
    wait_until = staticmethod(wait_until)

    def __init__(self, folder: Path, environ: dict[str, str], queue: str = "sms") -> None:
        self.folder = folder
        self.queue = queue
        path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
        self.environ = {**environ, "PROJECT_FOLDER": str(folder), "PYTHONPATH": path}
        self.environ["PROJECT_QUEUE"] = queue
        self._stack = contextlib.ExitStack()
        self.app = Celery("proj", set_as_current=False, task_cls=LimitedTask)
        local = Config.local(queues=[queue], directory=folder / "broker", DURABLE=True)
        config = local
        if "CELERY_BROKER_URL" in environ:
            config = Config(queues=[queue], DURABLE=True, result_backend=local.result_backend)
        self.app.config_from_object(config)
        for name in TASKS:
            self.app.task(nothing, name=f"{queue}.{name}", typing=False)
        self.tasks = self.app.tasks
        self.ledger = Ledger.from_app(self.app)

    def start(self, name: str, ready: str, *command: str) -> Child:
        """Start a process and wait until its log has ``ready``."""
        log = self.folder / f"{name}.log"
        child = Child([sys.executable, "-m", *command], log, self.environ, self.folder)
        self._stack.callback(child.kill)  # a warm shutdown would wait for what runs
        wait_until(lambda: ready in child.text() or child.ended, f"{name} to be ready")
        assert not child.ended, child.text()
        return child

    def worker(self, name: str = "w", concurrency: int = 2) -> Child:
        command = ["celery", "-A", "proj", "worker", "-n", f"{name}@{self.queue}", "-l", "INFO"]
        return self.start(name, "ready.", *command, "-c", str(concurrency))

    def monitor(self) -> Child:
        return self.start("monitor", "Recording", "celery", "-A", "proj", "monitor")

    def dispatcher(self, name: str = "dispatcher") -> Child:
        return self.start(name, "Dispatching", "rate_limited_queue.cli", "dispatch", "-A", "proj")

    def notes(self) -> list[list[str]]:
        """The lines that tasks have written, in words: when, release, customer, ..."""
        path = self.folder / "notes"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def gaps(self, customer: str) -> list[float]:
        """The times in ms between two beginnings of work of a customer, by this machine's clock."""
        times = sorted(int(line[0]) / 1e6 for line in self.notes() if line[2] == customer)
        return [second - first for first, second in zip(times, times[1:], strict=False)]

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def make_deployment(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Deployment]:
    """Makes a deployment; producers in this process have its settings."""

    def make(queue: str = "sms", **more: str) -> Deployment:
        environ["RLQ_SHARQ_JOB_EXPIRE_INTERVAL"] = "1200"
        environ.update(more)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        return Deployment(tmp_path, environ, queue)

    return make


@pytest.fixture
def deployment(make_deployment: Callable[..., Deployment]) -> Iterator[Deployment]:
    """A deployment on the embedded broker."""
    found = make_deployment()
    yield found
    found.close()
