"""RabbitMQ without room: workers empty it, publishers are told, and no retry is lost."""

from __future__ import annotations

import time

import pytest
from kombu.exceptions import OperationalError

from cadasta.workertoolbox import UnconfirmedError, setup_app
from cadasta.workertoolbox.checks.broker import check_broker
from tests.acceptance.deployment import Deployment
from tests.services import PrivateRabbitMQ


@pytest.fixture
def deployment(on_private_rabbitmq: Deployment) -> Deployment:
    on_private_rabbitmq.change(broker_transport_options={"confirm_timeout": 1}, DURABLE=True)
    return on_private_rabbitmq


def test_workers_go_on_and_publishers_are_told(
    deployment: Deployment, private_rabbitmq: PrivateRabbitMQ
) -> None:
    """With kombu's own transport, every worker waits for its heartbeat's confirmation."""
    for _ in range(200):
        deployment.app.send_task("export.sleep", (0.02,))
    deployment.start("worker", "early")
    deployment.wait_until(lambda: len(deployment.notes("ran")) > 50, "the first runs")
    private_rabbitmq.alarm(True)
    deployment.start("worker", "late")
    deployment.wait_until(lambda: len(deployment.notes("ran")) == 200, "all runs")

    for _ in range(2):  # the second time on the connection that the first one gave up
        started = time.monotonic()
        with pytest.raises(UnconfirmedError, match="alarms"):
            deployment.app.send_task("export.add", (1, 2))
        assert time.monotonic() - started < 5  # one wait, and none for a second attempt
    assert issubclass(UnconfirmedError, OperationalError)

    private_rabbitmq.alarm(False)
    assert deployment.app.send_task("export.add", (1, 2)).get(timeout=30) == 3
    deployment.stop_all()


def test_the_check_tells(deployment: Deployment, private_rabbitmq: PrivateRabbitMQ) -> None:
    setup_app(deployment.app)
    private_rabbitmq.alarm(True)
    [found] = [one for one in check_broker(deployment.app) if one.level == "error"]
    private_rabbitmq.alarm(False)
    assert "start workers that empty it" in found.remedy


def test_a_connection_that_sent_events_is_closed(
    deployment: Deployment, private_rabbitmq: PrivateRabbitMQ
) -> None:
    """The broker does not read that it is closed: a worker's stop would wait for it."""
    connection = deployment.app.connection_for_write()
    private_rabbitmq.alarm(True)
    producer = connection.Producer(auto_declare=False)
    producer.publish("event", routing_key="nowhere", delivery_mode=1)
    started = time.monotonic()
    connection.release()
    assert time.monotonic() - started < 5
    private_rabbitmq.alarm(False)


def test_a_retry_that_is_not_published_is_delivered_again(
    deployment: Deployment, private_rabbitmq: PrivateRabbitMQ
) -> None:
    """Celery itself rejects the message, and the broker drops it."""
    deployment.app.send_task("export.sleep", (5,), ignore_result=True)
    retried = deployment.app.send_task("export.retry", (1,))
    worker = deployment.start("worker", "one", "-c", "1")
    deployment.wait_until(lambda: deployment.notes("sleeping"), "the task before it")
    private_rabbitmq.alarm(True)
    worker.wait_for_log("its retry was not published, it is delivered again: UnconfirmedError")
    private_rabbitmq.alarm(False)
    assert retried.get(timeout=30) == 1


@pytest.mark.parametrize("durable", [True, False])
def test_a_retry_that_cannot_be_published_fails(deployment: Deployment, durable: bool) -> None:
    deployment.change(DURABLE=durable)
    deployment.start("worker", "one", "-c", "1")
    deployment.start("monitor")
    task = deployment.app.send_task("export.retry_in_vain")
    with pytest.raises(Exception, match="not JSON serializable"):
        task.get(timeout=30)
    deployment.wait_until(lambda: deployment.count() == 1, "the record")
    assert [(found.task_id, found.state) for found in deployment.all_tasks()] == [
        (task.id, "FAILURE")
    ]
