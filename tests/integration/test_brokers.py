"""What each broker says of itself, asked by the one interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection, Exchange, Queue

from cadasta.workertoolbox import Config, setup_app
from cadasta.workertoolbox.brokers.broker import Broker
from cadasta.workertoolbox.brokers.kinds import broker_of_app, broker_of_connection


@pytest.fixture(params=["rabbitmq", "redis", "sqs", "embedded"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def app(
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Celery]:
    """An app on a broker that knows none of its queues yet."""
    settings: dict[str, Any] = {"broker_url": f"embedded:///{tmp_path}/broker.sqlite3"}
    if kind == "rabbitmq":
        settings["broker_url"] = request.getfixturevalue("rabbitmq_url")
    elif kind == "redis":
        prefix = request.getfixturevalue("redis_prefix")
        settings["broker_url"] = request.getfixturevalue("redis_url")
        settings["broker_transport_options"] = {"global_keyprefix": prefix}
    elif kind == "sqs":
        for name, value in request.getfixturevalue("sqs_environment").items():
            monkeypatch.setenv(name, value)
        prefix = request.getfixturevalue("sqs_prefix")
        settings["broker_url"] = "sqs://"
        settings["broker_transport_options"] = {"queue_name_prefix": prefix}
    made = Celery("brokers", set_as_current=False)
    made.config_from_object(
        Config(
            queues=["export"],
            result_backend=f"toolbox+sqlite:///{tmp_path}/results.sqlite3",
            **settings,
        )
    )
    yield made
    made.close()


@pytest.fixture
def connection(app: Celery) -> Iterator[Connection]:
    with app.connection_for_write() as connection:
        yield connection


@pytest.fixture
def broker(app: Celery, connection: Connection) -> Broker:
    found = broker_of_connection(connection)
    assert found is broker_of_app(app)
    return found


@pytest.fixture
def queue(app: Celery) -> Queue:
    found: Queue = app.amqp.queues["export"]
    return found


def test_a_queue_is_absent_until_it_is_declared(
    kind: str, app: Celery, connection: Connection, broker: Broker, queue: Queue
) -> None:
    absence = broker.absence(connection, queue)
    # On Redis an empty queue is none; on SQS kombu makes it with the first look.
    assert (absence is None) == (kind in {"redis", "sqs"})
    setup_app(app)
    assert broker.absence(connection, queue) is None
    assert broker.difference(connection, queue) is None


def test_lengths_and_consumers(
    kind: str, app: Celery, connection: Connection, broker: Broker, queue: Queue
) -> None:
    setup_app(app)
    assert broker.length(connection, queue) == 0
    for _ in range(3):
        app.send_task("export.pdf")
    assert broker.length(connection, queue) == 3
    assert broker.length(connection, app.conf.task_routes.monitor) == 3
    assert broker.consumers(connection, queue) == (0 if kind == "rabbitmq" else None)


def test_bindings(
    kind: str, app: Celery, connection: Connection, broker: Broker, queue: Queue
) -> None:
    setup_app(app)
    with connection.channel() as channel:
        Queue("export", queue.exchange, routing_key="other")(channel).declare()
        Queue("export", Exchange("elsewhere", type="topic"), routing_key="x")(channel).declare()
    keys = broker.bindings(connection, queue, "http://127.0.0.1:1")  # where nobody manages
    if kind == "rabbitmq":
        assert keys is None
    else:
        assert keys == ({"export"} if kind == "sqs" else {"export", "other"})


def test_a_queue_of_another_kind(
    kind: str, connection: Connection, broker: Broker, queue: Queue
) -> None:
    with connection.channel() as channel:
        limited = Queue("export", queue.exchange, queue_arguments={"x-max-length": 5})
        limited(channel).declare()
    difference = broker.difference(connection, queue)
    if kind == "rabbitmq":
        assert "PRECONDITION_FAILED" in str(difference)
    else:
        assert difference is None


def test_what_only_one_broker_has(
    kind: str, app: Celery, connection: Connection, broker: Broker
) -> None:
    setup_app(app)
    connection.ensure_connection(max_retries=1)
    attributes = broker.attributes(connection, app.conf.task_routes.monitor)
    policy = broker.eviction_policy(connection)
    assert (attributes is not None) == (kind == "sqs")
    if attributes is not None:
        assert attributes.is_listed
        assert attributes.is_fifo
        assert attributes.visibility_timeout is None  # the settings' own
        assert attributes.arguments_bytes > 100_000
    if kind == "redis":
        with redis.Redis.from_url(app.conf.broker_url, decode_responses=True) as client:
            assert policy == client.config_get("maxmemory-policy")["maxmemory-policy"]
    else:
        assert policy is None


def test_the_monitor_stays_on_its_own_transport(
    kind: str, connection: Connection, broker: Broker
) -> None:
    named = connection.transport_cls
    transport = broker.monitor_transport(connection)
    assert (transport == named) == (kind in {"rabbitmq", "embedded"})
    options = broker.monitor_options(connection.transport_options)
    hidden = {name: value for name, value in options.items() if "visibility_timeout" in name}
    assert set(hidden.values()) == (set() if kind == "rabbitmq" else {30})
