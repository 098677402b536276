"""Fixtures: a key prefix on a real Redis, and servers as users start them.

``TEST_REDIS_URL`` names a Redis (default that on the standard port); each test has keys of its own
on it and removes them. Tests that stop Redis start one of their own.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from rate_limited_queue.client import Client
from rate_limited_queue.processes import running_server

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
