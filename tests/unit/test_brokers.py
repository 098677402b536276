"""What the toolbox asks of each kind of broker, as far as no server is needed for the answer."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Exchange, Queue
from redis import exceptions as redis

from cadasta.workertoolbox.brokers.broker import Broker
from cadasta.workertoolbox.brokers.kinds import (
    BROKERS,
    broker_of,
    broker_of_app,
    broker_of_connection,
)
from cadasta.workertoolbox.brokers.redis.replies import passes
from cadasta.workertoolbox.brokers.sqs.names import sqs_name
from cadasta.workertoolbox.brokers.transports import register
from cadasta.workertoolbox.conf import Config
from cadasta.workertoolbox.errors import ConfigError
from tests.monitor_thread import monitoring
from tests.services import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("url", "transport", "name"),
    [
        (None, None, "amqp"),
        ("amqp://host//", None, "amqp"),
        ("amqps://host//", None, "amqp"),
        ("pyamqp://host//", None, "amqp"),
        ("librabbitmq://host//", None, "amqp"),
        ("amqp://host//", "toolbox-amqps", "amqp"),
        ("redis://host", None, "redis"),
        ("rediss://host", None, "redis"),
        ("redis+socket:///tmp/redis", None, "redis"),
        (["sentinel://one", "sentinel://two"], None, "redis"),
        ("SQS://", None, "sqs"),
        ("embedded:////tmp/x", None, "embedded"),
        ("amqp://host//", "redis", "redis"),
        ("memory://", None, "memory"),
        ("sqla+sqlite://", None, "sqla"),
    ],
)
def test_a_url_names_its_broker(url: Any, transport: str | None, name: str) -> None:
    broker = broker_of(url, transport)
    assert broker.name == name
    assert (broker in BROKERS) == (name in {"amqp", "redis", "sqs", "embedded"})


@pytest.mark.parametrize(
    ("transport", "name"),
    [
        ("amqp", "amqp"),
        ("toolbox-amqp", "amqp"),
        ("redis", "redis"),
        ("toolbox-redis", "redis"),
        ("toolbox-sentinel", "redis"),
        ("toolbox-sqs", "sqs"),
        ("embedded", "embedded"),
        ("cadasta.workertoolbox.brokers.redis.transport:Transport", "redis"),
        ("memory", "memory"),
    ],
)
def test_a_connection_tells_its_broker_by_its_driver(transport: str, name: str) -> None:
    register()
    with Connection(transport=transport) as connection:
        assert broker_of_connection(connection).name == name


@pytest.mark.parametrize("name", ["settings", "options"])
def test_each_default_has_its_reason(name: str) -> None:
    for broker in BROKERS:
        for default in getattr(broker, name).values():
            assert default.reason.endswith(".")


@pytest.mark.parametrize(
    "url", ["sqs://", "amqp://", "redis://", "embedded:////tmp/x", "memory://"]
)
def test_settings_load_no_driver(url: str) -> None:
    """A producer pays for a driver with its first connection, and for one broker's alone."""
    drivers = ("redis", "boto3", "botocore", "sqlite3", "urllib.request", "kombu.transport.virtual")
    transports = tuple(f"cadasta.workertoolbox.brokers.{kind.name}.transport" for kind in BROKERS)
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"  # coverage, where it measures, loads some itself
        "from cadasta.workertoolbox.conf import Config\n"
        f"Config(queues=['a'], broker_url={url!r})\n"
        f"print([name for name in {(*drivers, *transports)} if name in set(sys.modules) - before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == []


def test_the_url_that_is_read_from_decides() -> None:
    urls = {f"broker_{way}_url": "amqp://host//" for way in ("read", "write")}
    config = Config(queues=["a"], **urls)
    assert "region" not in config.broker_transport_options
    assert config.task_routes.expires_on_broker is True
    assert config.task_routes.message_groups is False


def test_a_broker_that_the_toolbox_does_not_know(tmp_path: Path) -> None:
    """Its queues are recorded, and what it cannot tell is left out."""
    app = Celery("other", set_as_current=False)
    app.config_from_object(
        Config(
            queues=["export"],
            broker_url="memory://",
            result_backend=f"toolbox+sqlite:///{tmp_path}/ledger.sqlite3",
        )
    )
    broker = broker_of_app(app)
    assert type(broker) is Broker
    assert broker.visibility_timeout(app.conf.broker_transport_options) is None
    queue = app.conf.task_routes.queues["export"]
    with app.connection_for_write() as connection:
        assert broker.absence(connection, queue) is not None
        sent = app.send_task("export.pdf")
        assert broker.absence(connection, queue) is None
        assert broker.difference(connection, queue) is None
        assert broker.length(connection, queue) == 1
        assert broker.consumers(connection, queue) is None
        assert broker.bindings(connection, queue, None) == {"export"}
        assert broker.attributes(connection, queue) is None
        assert broker.eviction_policy(connection) is None
    with monitoring(app, interval=0.02) as monitor:
        wait_until(lambda: monitor.ledger.get(sent.id), what="the record")
    with app.connection_for_write() as connection:  # All tests of this process share the memory.
        for one in (queue, app.conf.task_routes.monitor):
            one(connection.default_channel).delete()
    app.close()


def test_a_queue_type_is_rabbitmqs_alone() -> None:
    quorum = Queue("a", Exchange("x"), queue_arguments={"x-queue-type": "quorum"}, durable=False)
    for broker in (*BROKERS, Broker("memory")):
        is_rabbitmq = broker.title == "RabbitMQ"
        assert broker.queue_type("quorum") == ("quorum" if is_rabbitmq else "classic")
        assert broker.limits_deliveries([quorum]) is (True if is_rabbitmq else None)
        if is_rabbitmq:
            assert broker.limits_deliveries([quorum, Queue("b")]) is False
            with pytest.raises(ConfigError, match="durable=False"):
                broker.require_possible_queues([quorum])
        else:
            broker.require_possible_queues([quorum])


def test_predefined_sqs_queues_are_listed_as_kombu_looks_for_them() -> None:
    url = {"url": "https://sqs.us-west-2.amazonaws.com/1/x"}
    names = ("celery", "platform.fifo")
    others = dict.fromkeys(names, url)
    options = {"predefined_queues": {**others, "data-sync": url}}
    Config(queues=["data.sync"], broker_transport_options=options)
    options = {"predefined_queues": {**others, "data.sync": url}}
    with pytest.raises(ConfigError, match="lacks data-sync"):
        Config(queues=["data.sync"], broker_transport_options=options)


def test_the_default_queue_has_a_name_that_sqs_takes() -> None:
    with pytest.raises(ConfigError, match="are both 'dev-a-b' on SQS"):
        Config(queues=["a-b"], broker_url="sqs://", task_default_queue="a.b")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (redis.ReadOnlyError("You can't write against a read only replica."), True),
        (redis.ResponseError("BUSY Redis is busy running a script."), True),
        (redis.ResponseError("BUSYGROUP Consumer Group name already exists"), False),
        (redis.ResponseError("UNBLOCKED force unblock from blocking operation"), True),
        (redis.ExecAbortError("Transaction discarded because of: MISCONF no disk"), True),
        (redis.ExecAbortError("Transaction discarded because of: WRONGTYPE"), False),
        (redis.ResponseError("max number of clients reached"), True),
        (redis.ResponseError("WRONGTYPE Operation against a key"), False),
    ],
)
def test_replies_of_redis_that_pass(error: Exception, expected: bool) -> None:
    assert passes(error) is expected


@pytest.mark.parametrize(
    ("name", "prefix", "real"),
    [
        ("data.sync", "dev-", "dev-data-sync"),
        ("platform.fifo", "dev-", "dev-platform.fifo"),
        ("a.b.fifo", "", "a-b.fifo"),
        ("a_b-c", "", "a_b-c"),
        ("a:b", "x.", "x-a_b"),
    ],
)
def test_names_on_sqs_are_kombus(name: str, prefix: str, real: str) -> None:
    from kombu.transport.SQS import Channel

    assert sqs_name(name, prefix) == real
    assert Channel.entity_name(None, prefix + name) == real
