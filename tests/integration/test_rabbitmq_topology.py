"""Exchange, bindings and delays on RabbitMQ itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Exchange, Queue
from kombu.exceptions import ChannelError, OperationalError

from cadasta.workertoolbox import Config, ConfigError, TopologyError, setup_app
from cadasta.workertoolbox.routing.names import MAX_QUEUE_NAME
from tests.monitor_thread import monitoring
from tests.services import Process, wait_until

MakeApp = Callable[..., Celery]


@pytest.fixture
def make_app(rabbitmq_url: str, tmp_path: Path) -> Iterator[MakeApp]:
    apps = []

    def make(**settings: Any) -> Celery:
        app = Celery("topology", set_as_current=False)
        settings.setdefault("result_backend", f"toolbox+sqlite:///{tmp_path}/results.sqlite3")
        settings.setdefault("queues", ["export", "data.sync"])
        app.config_from_object(Config(broker_url=rabbitmq_url, **settings))
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


def sizes(url: str, *queues: str) -> dict[str, int]:
    """How many messages wait in each queue; -1 where there is none of that name."""
    found = {}
    with Connection(url) as connection:
        for name in queues:
            try:
                with connection.channel() as channel:
                    found[name] = channel.queue_declare(name, passive=True).message_count
            except ChannelError:
                found[name] = -1
    return found


def test_a_publish_brings_its_topology_along(make_app: MakeApp, rabbitmq_url: str) -> None:
    make_app().send_task("data.sync.all")
    assert sizes(rabbitmq_url, "data.sync", "platform.fifo", "export") == {
        "data.sync": 1,
        "platform.fifo": 1,
        "export": -1,
    }


def test_setup_app_declares_everything_once(make_app: MakeApp, rabbitmq_url: str) -> None:
    app = make_app()
    setup_app(app)
    assert app.is_set_up is True
    assert app.tasks["celery.chord_unlock"].max_retries == 21_600
    queues = ("data.sync", "export", "celery", "platform.fifo")
    assert sizes(rabbitmq_url, *queues) == dict.fromkeys(queues, 0)
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete("export")
    setup_app(app)
    assert sizes(rabbitmq_url, "export") == {"export": -1}


def test_setup_app_raises_or_logs(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    app.conf.broker_url = "amqp://guest:hunter2@127.0.0.1:1//"
    with pytest.raises(OperationalError):
        setup_app(app)
    assert app.is_set_up is False
    setup_app(app, throw=False)
    assert app.is_set_up is False
    assert "declare_topology failed" in caplog.text
    assert "hunter2" not in caplog.text
    # the steps after the one that failed were taken all the same
    assert Path(app.conf.result_backend.removeprefix("toolbox+sqlite:///")).exists()


def test_setup_app_wants_the_toolboxs_settings() -> None:
    with pytest.raises(ConfigError, match=r"app 'plain' is not configured by the toolbox"):
        setup_app(Celery("plain", set_as_current=False))


def test_every_publish_is_confirmed(make_app: MakeApp) -> None:
    app = make_app()
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        app.send_task("export.x")
        with app.producer_or_acquire() as producer:
            assert producer.channel.connection.confirm_publish
        assert channel.connection.confirm_publish


def test_a_delayed_task_is_recorded_at_once_and_comes_out_when_due(
    make_app: MakeApp, rabbitmq_url: str
) -> None:
    """Before any worker has started: Celery alone would lose this message."""
    app = make_app(QUEUE_TYPE="quorum")
    app.send_task("data.sync.later", countdown=2)
    published = time.monotonic()
    wait_until(lambda: sizes(rabbitmq_url, "platform.fifo")["platform.fifo"] == 1, 2, "the copy")
    assert time.monotonic() - published < 1.5
    with app.connection_for_read() as connection:
        [copy] = [Queue("platform.fifo")(connection.default_channel).get(no_ack=True)]
    assert copy.delivery_info["routing_key"].endswith(".data.sync")
    wait_until(lambda: sizes(rabbitmq_url, "data.sync")["data.sync"] == 1, 5, "the task")
    assert 1 < time.monotonic() - published < 4


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_task_expires_in_its_queue_and_its_record_does_not(
    make_app: MakeApp, rabbitmq_url: str, queue_type: str
) -> None:
    app = make_app(QUEUE_TYPE=queue_type)
    foreign = Queue("foreign", Exchange("own"), routing_key="foreign")
    for _ in range(100):
        app.send_task("export.x", (1,), expires=1)
    app.send_task("export.x", (1,), expires=1, queue=foreign)
    app.send_task("export.x", (1,), expires=-5)
    # After the others: RabbitMQ drops what has expired when it is the first in its queue.
    lasting = [app.send_task("export.x", (0,)).id, app.send_task("export.x", (0,), expires=1e8).id]
    wanted = {"export": 2, "foreign": 0}
    wait_until(lambda: sizes(rabbitmq_url, *wanted) == wanted, 20, "the end of the others")
    assert sizes(rabbitmq_url, "platform.fifo") == {"platform.fifo": 104}
    with app.connection_for_read() as connection:
        message = Queue("export")(connection.default_channel).get(no_ack=True)
        assert not [name for name in message.headers if name == "toolbox_queue"]
    with monitoring(app) as monitor:
        wait_until(lambda: monitor.ledger.summary().total == 104, 20, "the records")
        found = monitor.ledger.find(limit=200).tasks
        assert {task.task_id for task in found if not task.has_expired} == set(lasting)
        assert {task.publications for task in found} == {1}
        assert Counter(task.queue for task in found) == {"export": 103, "foreign": 1}
        left = {task.task_id for task in monitor.ledger.unfinished(timedelta(0))}
        assert left == set(lasting)


def test_a_delayed_task_that_expires_does_not_come_early(
    make_app: MakeApp, rabbitmq_url: str
) -> None:
    """On quorum queues each queue of the delays would hand it on when it expires."""
    name = "q" * MAX_QUEUE_NAME
    app = make_app(QUEUE_TYPE="quorum", queues=[name])
    published = time.monotonic()
    app.send_task("x", countdown=3, expires=1, queue=name)
    wait_until(lambda: sizes(rabbitmq_url, name)[name] == 1, 10, "the task")
    assert time.monotonic() - published > 2


@pytest.mark.parametrize("first", ["setup_app", "publish", "worker"])
@pytest.mark.parametrize("late", [False, True])
def test_the_highest_priority_is_declared_whoever_comes_first(
    make_app: MakeApp, rabbitmq_url: str, first: str, late: bool
) -> None:
    def app() -> Celery:
        made = make_app() if late else make_app(task_queue_max_priority=10)
        made.conf.task_queue_max_priority = 10
        return made

    def consume() -> None:
        with app().connection_for_read() as connection:
            app().amqp.TaskConsumer(connection.default_channel).declare()

    steps: dict[str, Callable[[], object]] = {
        "setup_app": lambda: setup_app(app()),
        "publish": lambda: app().send_task("export.x", priority=3),
        "worker": consume,
    }
    for name in sorted(steps, key=lambda name: name != first):
        steps[name]()
    with Connection(rabbitmq_url) as connection:
        arguments = {"x-max-priority": 10}
        Queue("export", queue_arguments=arguments)(connection.default_channel).queue_declare()


def test_a_queue_of_ones_own_is_declared_as_it_is(make_app: MakeApp, rabbitmq_url: str) -> None:
    exchange = Exchange("task_exchange", type="topic")
    options = {"durable": False, "max_length": 5, "message_ttl": 60, "max_priority": 3}
    queue = Queue("export", exchange, routing_key="export", **options)
    app = make_app(queues=["export"], task_queues=[queue], task_default_queue="export")
    app.send_task("export.x")
    with app.connection_for_read() as connection:
        queue(connection.default_channel).queue_declare()
    assert sizes(rabbitmq_url, "export") == {"export": 1}


def test_workers_refuse_the_monitor_queue(
    make_app: MakeApp, rabbitmq_url: str, run_celery: Callable[..., Process], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from celery import Celery\n"
        "from cadasta.workertoolbox import Config\n"
        "app = Celery('mine')\n"
        "app.config_from_object(Config(queues=['export']))\n"
    )
    env = {
        "CELERY_BROKER_URL": rabbitmq_url,
        "CELERY_RESULT_BACKEND": f"toolbox+sqlite:///{tmp_path}/results.sqlite3",
    }
    refused = run_celery("-A", "mine", "worker", "-Q", "platform.fifo", env=env, cwd=tmp_path)
    assert refused.wait() != 0
    assert "platform.fifo" in refused.log_text()
    worker = run_celery("-A", "mine", "worker", "-l", "INFO", "-c", "1", env=env, cwd=tmp_path)
    worker.wait_for_log(r"ready\.")
    app = make_app()
    [reply] = app.control.broadcast(
        "add_consumer", arguments={"queue": "platform.fifo"}, reply=True, timeout=5
    )
    assert "is the monitor queue" in str(reply)
    app.send_task("export.unknown")
    worker.wait_for_log("export.unknown")
    assert sizes(rabbitmq_url, "platform.fifo") == {"platform.fifo": 1}


def test_an_unknown_queue_is_an_error(make_app: MakeApp) -> None:
    from celery.exceptions import QueueNotFound

    with pytest.raises(QueueNotFound, match="nowhere"):
        make_app().send_task("export.x", queue="nowhere")
    with pytest.raises(TopologyError, match="reaches no queue"):
        make_app().send_task("export.x", routing_key="nowhere")
