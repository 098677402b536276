"""Whatever dies, each task that was published is in the ledger once."""

from __future__ import annotations

import os
import random
import threading
import time

import pytest

from tests.acceptance.deployment import Deployment
from tests.services import PrivatePostgres, PrivateRabbitMQ

TASKS = 3000
#: Kills of a monitor; TEST_FULL=1: over all of these tasks.
KILLS = 20 if os.environ.get("TEST_FULL") else 8


def publish_in_background(deployment: Deployment, tasks: int = TASKS) -> threading.Thread:
    thread = threading.Thread(target=deployment.produce, args=("many", tasks))
    thread.start()
    return thread


def assert_complete(deployment: Deployment, tasks: int = TASKS) -> None:
    """Wait for every published task; no task more, and none twice."""
    published = {line[0] for line in deployment.notes("published")}
    assert len(published) == tasks
    deployment.wait_until(lambda: deployment.count() >= tasks, f"{tasks} rows", timeout=100)
    assert {task.task_id for task in deployment.all_tasks()} == published
    assert deployment.count() == tasks


@pytest.mark.parametrize("deployment", ["rabbitmq", "redis", "embedded"], indirect=True)
def test_a_monitor_that_is_killed_loses_nothing(deployment: Deployment) -> None:
    dice = random.Random(20)
    tasks = KILLS * TASKS // 20
    publishing = publish_in_background(deployment, tasks)
    for _ in range(KILLS):
        monitor = deployment.start("monitor", "", "--batch", "50", "--interval", "0.05")
        time.sleep(dice.uniform(0, 0.4))  # the moment of the kill is the point of this test
        monitor.kill()
    publishing.join()
    deployment.start("monitor", "", "--batch", "50")
    assert_complete(deployment, tasks)


@pytest.mark.parametrize("deployment", ["rabbitmq"], indirect=True)
def test_two_monitors_share_the_work(deployment: Deployment) -> None:
    deployment.start("monitor", "one", "--batch", "50")
    deployment.start("monitor", "two", "--batch", "50")
    publish_in_background(deployment).join()
    assert_complete(deployment)
    deployment.stop_all()
    shares = [
        int(process.wait_for_log(r"Stopped; (\d+) messages")[1])
        for process in deployment.processes.values()
    ]
    assert sum(shares) == TASKS
    assert min(shares) > 0


def test_an_outage_of_the_database_is_waited_out(
    on_private_postgres: Deployment, private_postgres: PrivatePostgres
) -> None:
    deployment = on_private_postgres
    monitor = deployment.start("monitor")
    publishing = publish_in_background(deployment)
    deployment.wait_until(lambda: deployment.count() > 100, "the first rows")
    private_postgres.stop()
    monitor.wait_for_log("The ledger cannot be written")
    time.sleep(10)  # the length of the outage
    private_postgres.start()
    monitor.wait_for_log("The ledger is written again")
    publishing.join()
    assert_complete(deployment)
    assert monitor.stop() == 0


def test_a_restart_of_the_broker_is_waited_out(
    on_private_rabbitmq: Deployment, private_rabbitmq: PrivateRabbitMQ
) -> None:
    deployment = on_private_rabbitmq
    monitor = deployment.start("monitor")
    deployment.produce("many", 1500)
    private_rabbitmq.restart()
    monitor.wait_for_log("The broker is away")
    deployment.produce("many", 1500)
    assert_complete(deployment)


def test_a_publish_without_a_broker_raises_within_seconds(
    on_private_rabbitmq: Deployment, private_rabbitmq: PrivateRabbitMQ
) -> None:
    from kombu.exceptions import OperationalError

    private_rabbitmq.stop()
    started = time.monotonic()
    with pytest.raises(OperationalError):
        on_private_rabbitmq.app.send_task("export.add", (1, 2))
    assert time.monotonic() - started < 20
    private_rabbitmq.start()


@pytest.mark.parametrize("deployment", ["redis"], indirect=True)
def test_redis_gives_prefetched_tasks_back(deployment: Deployment) -> None:
    """The monitor's acknowledgements once erased what a stopping worker held."""
    deployment.start("monitor")
    worker = deployment.start("worker", "one")
    for _ in range(30):
        deployment.app.send_task("export.sleep", (0.3,))
    deployment.wait_until(lambda: len(deployment.notes("sleeping")) >= 3, "a busy worker")
    deployment.wait_until(lambda: deployment.count() == 30, "30 records")
    assert worker.stop(timeout=30) == 0
    assert len(deployment.notes("sleeping")) < 30
    deployment.start("worker", "two")
    deployment.wait_until(lambda: len(deployment.notes("sleeping")) >= 30, "all 30 runs")
    assert {task.task_id for task in deployment.all_tasks()} == {
        line[0] for line in deployment.notes("ran")
    }
    assert len(deployment.notes("ran")) == 30


@pytest.mark.parametrize("deployment", ["redis", "embedded"], indirect=True)
def test_a_killed_worker_costs_a_redelivery(deployment: Deployment) -> None:
    options = deployment.settings.setdefault("broker_transport_options", {})
    options.update(visibility_timeout=5, unacked_restore_interval=1, unacked_restore_throttle=1)
    deployment.change(DURABLE=True, broker_transport_options=options)
    deployment.start("monitor")
    worker = deployment.start("worker", "one", "-c", "1")
    for _ in range(5):
        deployment.app.send_task("export.sleep", (1.0,))
    deployment.wait_until(lambda: deployment.notes("sleeping"), "a task that runs")
    worker.kill()
    deployment.start("worker", "two")
    deployment.wait_until(
        lambda: (
            len({line[0] for line in deployment.notes("ran")}) == 5
            and all(task.state == "SUCCESS" for task in deployment.all_tasks())
        ),
        "all five tasks",
    )
    assert deployment.count() == 5
