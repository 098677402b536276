"""The fixture ``deployment``: the project on each broker, with a database of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.deployment import Deployment
from tests.conftest import StartProcess
from tests.services import PrivatePostgres, PrivateRabbitMQ, PrivateRedis

BROKERS = ("rabbitmq", "rabbitmq-quorum", "sqs", "redis", "embedded")


def _settings(broker: str, folder: Path, get: Callable[[str], Any]) -> dict[str, Any]:
    """The settings that differ between brokers, and on which database each is tried."""
    if broker == "embedded":
        return {
            "broker_url": f"embedded:///{folder}/broker.sqlite3",
            "result_backend": f"toolbox+sqlite:///{folder}/ledger.sqlite3",
        }
    if broker == "redis":
        return {
            "broker_url": get("redis_url"),
            "broker_transport_options": {"global_keyprefix": get("redis_prefix")},
            "result_backend": f"toolbox+sqlite:///{folder}/ledger.sqlite3",
        }
    if broker == "sqs":
        host = get("sqs_endpoint").removeprefix("http://")
        return {
            "broker_url": f"sqs://test:test@{host}",
            "broker_transport_options": {
                "is_secure": False,
                "queue_name_prefix": get("sqs_prefix"),
                "wait_time_seconds": 1,
            },
            "result_backend": f"toolbox+{get('postgres_url')}",
        }
    # Celery's own result backend once, for those who stay with it.
    backend = "db" if broker.endswith("quorum") else "toolbox"
    return {
        "broker_url": get("rabbitmq_url"),
        "QUEUE_TYPE": "quorum" if broker.endswith("quorum") else "classic",
        "result_backend": f"{backend}+{get('postgres_url')}",
    }


#: Tests of much work, whose processes are not measured for coverage: that takes a third of their
#: time, and others run the same lines.
UNMEASURED = {"test_embedded_broker", "test_every_broker", "test_outages", "test_quickstart"}


@pytest.fixture(autouse=True)
def measure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep coverage out of the processes of some tests."""
    if request.module.__name__.rpartition(".")[2] in UNMEASURED:
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(params=BROKERS)
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """The project on one broker; nothing runs yet."""
    broker: str = request.param
    environ = request.getfixturevalue("sqs_environment") if broker == "sqs" else {}
    found = Deployment(tmp_path, _settings(broker, tmp_path, request.getfixturevalue), environ)
    yield found
    found.close()


@pytest.fixture
def on_private_postgres(
    rabbitmq_url: str, private_postgres: PrivatePostgres, tmp_path: Path
) -> Iterator[Deployment]:
    """The project on RabbitMQ, with a database server that a test may stop."""
    backend = f"toolbox+{private_postgres.url}"
    with closing(
        Deployment(tmp_path, {"broker_url": rabbitmq_url, "result_backend": backend})
    ) as d:
        yield d


@pytest.fixture
def on_private_rabbitmq(
    private_rabbitmq: PrivateRabbitMQ, postgres_url: str, tmp_path: Path
) -> Iterator[Deployment]:
    """The project on PostgreSQL, with a broker that a test may stop."""
    url, backend = private_rabbitmq.url, f"toolbox+{postgres_url}"
    with closing(Deployment(tmp_path, {"broker_url": url, "result_backend": backend})) as d:
        yield d


@pytest.fixture
def on_private_redis(private_redis: PrivateRedis, tmp_path: Path) -> Iterator[Deployment]:
    """The project on SQLite, with a Redis that a test may stop, freeze or demote."""
    backend = f"toolbox+sqlite:///{tmp_path}/ledger.sqlite3"
    settings = {"broker_url": private_redis.url, "result_backend": backend}
    with closing(Deployment(tmp_path, settings)) as d:
        yield d


@pytest.fixture
def evicting_redis(tmp_path: Path, run_process: StartProcess) -> str:
    """A Redis server of one's own that drops keys when its memory is full."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--save", "", "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    server = run_process("redis-server", "--port", str(port), "--bind", "127.0.0.1", *options)
    server.wait_for_log("Ready to accept connections")
    return f"redis://127.0.0.1:{port}/0"
