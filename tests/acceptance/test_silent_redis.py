"""A Redis that takes connections and messages and answers nothing, or refuses what it is asked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from cadasta.workertoolbox import Config, UnconfirmedError
from tests.acceptance.deployment import Deployment
from tests.services import PrivateRedis, SilentProxy

#: Seconds after which a test that waits for ever has failed; the limits under test are far below.
AGES = 60
#: Transport options with which what was delivered and not acknowledged is soon delivered again.
BRIEF = {"visibility_timeout": 5, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}


class Replaced(NamedTuple):
    """A proxy before a Redis, and the Redis that comes after it."""

    proxy: SilentProxy
    heir: PrivateRedis


Silence = Callable[[PrivateRedis], AbstractContextManager[None]]


@contextmanager
def frozen(server: PrivateRedis) -> Iterator[None]:
    """The process stands still."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@contextmanager
def paused(server: PrivateRedis) -> Iterator[None]:
    """An administrator has paused what writes, before a failover."""
    with redis.Redis.from_url(server.url) as client:
        client.client_pause(AGES * 1000, all=False)
        try:
            yield
        finally:
            client.client_unpause()


@pytest.fixture
def deployment(on_private_redis: Deployment) -> Deployment:
    on_private_redis.change(
        broker_transport_options={
            "confirm_timeout": 2,
            "socket_timeout": 2,
            "socket_connect_timeout": 1,
            "health_check_interval": 1,
        }
    )
    return on_private_redis


def unacknowledged(server: PrivateRedis) -> int:
    with redis.Redis.from_url(server.url) as client:
        return int(client.hlen("unacked"))


def ids(server: PrivateRedis, queue: str = "export") -> list[str]:
    with redis.Redis.from_url(server.url) as client:
        found: list[bytes] = client.lrange(queue, 0, -1)
    return [json.loads(message)["headers"]["id"] for message in found]


@pytest.mark.parametrize("silence", [frozen, paused])
def test_a_publisher_is_told_and_nothing_is_sent_twice(
    deployment: Deployment, private_redis: PrivateRedis, silence: Silence
) -> None:
    sent = [deployment.app.send_task("export.add", (1, 2)).id]
    started = time.monotonic()
    with silence(private_redis):
        with pytest.raises(UnconfirmedError, match="within 2 seconds"):
            deployment.app.send_task("export.add", (1, 2), task_id="unconfirmed")
        with pytest.raises(OperationalError):
            deployment.app.send_task("export.add", (1, 2), task_id="another")
        assert time.monotonic() - started < AGES / 2
    sent += [deployment.app.send_task("export.add", (1, 2)).id]
    deployment.wait_until(lambda: sent[1] in ids(private_redis), "the last message")
    for queue in ("export", "platform.fifo"):
        found = ids(private_redis, queue)
        assert len(found) == len(set(found))
        assert set(sent) <= set(found) <= {*sent, "unconfirmed", "another"}


def test_the_wait_is_an_argument_of_a_publish(
    deployment: Deployment, private_redis: PrivateRedis
) -> None:
    deployment.app.send_task("export.add", (1, 2))
    with frozen(private_redis), pytest.raises(UnconfirmedError, match="within 0.5 seconds"):
        deployment.app.send_task("export.add", (1, 2), confirm_timeout=0.5)


@pytest.mark.parametrize("silence", [frozen, paused])
def test_workers_and_monitor_wait_it_out(
    deployment: Deployment, private_redis: PrivateRedis, silence: Silence
) -> None:
    worker = deployment.start("worker", "one")
    monitor = deployment.start("monitor")
    task = deployment.app.send_task("export.add", (1, 2))
    assert task.get(timeout=30) == 3
    with silence(private_redis):
        worker.wait_for_log("dropping stale connection")
        monitor.wait_for_log("The broker is away")
    tasks = [deployment.app.send_task("export.add", (n, n)) for n in range(10)]
    assert [task.get(timeout=30) for task in tasks] == [2 * n for n in range(10)]
    deployment.wait_until(lambda: deployment.count() == 11, "11 records")
    deployment.stop_all()


@pytest.mark.parametrize("silence", [frozen, paused])
def test_a_monitor_ends_that_gets_no_answer(
    deployment: Deployment, private_redis: PrivateRedis, silence: Silence
) -> None:
    monitors = [deployment.start("monitor", name) for name in ("waits", "knows")]
    with silence(private_redis):
        monitors[1].wait_for_log("The broker is away")
        for monitor in monitors:
            assert monitor.stop(timeout=10) == 0


@contextmanager
def demoted(server: PrivateRedis) -> Iterator[None]:
    """A failover has made it a replica; its clients stay connected."""
    with redis.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", 1)
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


@contextmanager
def without_replicas(server: PrivateRedis) -> Iterator[None]:
    """It has fewer replicas than it needs to take a write."""
    with redis.Redis.from_url(server.url) as client:
        client.config_set("min-replicas-to-write", 1)
        try:
            yield
        finally:
            client.config_set("min-replicas-to-write", 0)


@contextmanager
def stale(server: PrivateRedis) -> Iterator[None]:
    """A replica that has lost its master, and answers nobody meanwhile."""
    with redis.Redis.from_url(server.url) as client:
        client.config_set("replica-serve-stale-data", "no")
        with demoted(server):
            yield


@pytest.mark.parametrize("refusal", [demoted, without_replicas, stale])
def test_a_server_that_refuses_is_waited_for(
    deployment: Deployment, private_redis: PrivateRedis, refusal: Silence
) -> None:
    """Celery alone ends the worker with 1."""
    worker = deployment.start("worker", "one")
    monitor = deployment.start("monitor")
    assert deployment.app.send_task("export.add", (1, 2)).get(timeout=30) == 3
    with refusal(private_redis):
        worker.wait_for_log("Connection to broker lost")
        monitor.wait_for_log("The broker is away")
        with pytest.raises(OperationalError, match="refuses commands for now"):
            deployment.app.send_task("export.add", (1, 2))
        late = deployment.start("worker", "late", ready="Cannot connect|Connection to broker lost")
    tasks = [deployment.app.send_task("export.add", (n, n)) for n in range(10)]
    assert [task.get(timeout=60) for task in tasks] == [2 * n for n in range(10)]
    deployment.wait_until(lambda: deployment.count() == 11, "11 records")
    late.wait_for_log(r"ready\.", timeout=60)
    deployment.stop_all()


def test_a_retry_to_a_server_that_refuses_is_delivered_again(
    deployment: Deployment, private_redis: PrivateRedis
) -> None:
    """Celery alone drops the message: the task is gone."""
    options = deployment.settings["broker_transport_options"]
    deployment.change(DURABLE=True, broker_transport_options=options | BRIEF)
    retried = deployment.app.send_task("export.sleep_and_retry", (2,))
    worker = deployment.start("worker", "one", "-c", "1")
    deployment.wait_until(lambda: deployment.notes("sleeping"), "a task that runs")
    with demoted(private_redis):
        worker.wait_for_log("its retry was not published, it is delivered again", timeout=AGES)
    assert retried.get(timeout=AGES) == 1
    deployment.wait_until(lambda: unacknowledged(private_redis) == 0, "the acknowledgements")
    deployment.stop_all()


@pytest.fixture
def replaced(deployment: Deployment, private_redis: PrivateRedis) -> Iterator[Replaced]:
    """The project behind a proxy, and the host that takes the place of its Redis."""
    with PrivateRedis() as heir, SilentProxy("127.0.0.1", private_redis.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        deployment.change(broker_url=url)
        yield Replaced(proxy, heir)


def test_a_worker_whose_host_is_replaced_loses_no_task(
    deployment: Deployment, replaced: Replaced
) -> None:
    """Celery alone loses one: taken from the new host, and noted at the one that is gone."""
    worker = deployment.start("worker", "one", "-c", "1")
    assert deployment.app.send_task("export.add", (1, 2)).get(timeout=30) == 3
    producer = Celery("producer", set_as_current=False)
    producer.config_from_object(Config(**deployment.settings | {"broker_url": replaced.heir.url}))
    for number in range(5):
        producer.send_task("export.add", (number, 0), task_id=f"waiting-{number}")
    producer.close()
    replaced.proxy.replace_host(replaced.heir.port)
    worker.wait_for_log("dropping stale connection", timeout=AGES)
    expected = {f"waiting-{number}" for number in range(5)}
    deployment.wait_until(
        lambda: expected <= {line[0] for line in deployment.notes("ran")}, "five runs", AGES
    )
    assert len(deployment.notes("ran")) == 6
    deployment.wait_until(lambda: unacknowledged(replaced.heir) == 0, "five acknowledgements")
    deployment.stop_all()


def test_a_publisher_whose_host_is_replaced_is_told_once(
    deployment: Deployment, replaced: Replaced
) -> None:
    deployment.app.send_task("export.add", (1, 2))
    replaced.proxy.replace_host(replaced.heir.port)
    sent = []
    try:
        # Unused for a second, the connection is tried first; else nothing tells that it is dead.
        sent.append(deployment.app.send_task("export.add", (1, 2)).id)
    except UnconfirmedError:
        pass
    sent.append(deployment.app.send_task("export.add", (1, 2)).id)
    for queue in ("export", "platform.fifo"):
        assert sorted(ids(replaced.heir, queue)) == sorted(sent)


def test_a_task_that_a_full_server_lets_nobody_note_is_not_lost(
    deployment: Deployment, private_redis: PrivateRedis
) -> None:
    """It gives the task away, and refuses to keep who has it. Celery alone ends the worker."""
    options = deployment.settings["broker_transport_options"]
    deployment.change(broker_transport_options=options | BRIEF)
    tasks = [deployment.app.send_task("export.sleep", (0.5,)).id for _ in range(10)]
    worker = deployment.start("worker", "one", "-c", "1")
    deployment.wait_until(lambda: deployment.notes("sleeping"), "a task that runs")
    with redis.Redis.from_url(private_redis.url) as client:
        client.config_set("maxmemory", 1)
        worker.wait_for_log("goes back to its queue later")
        worker.wait_for_log("Trying to re-establish")
        client.config_set("maxmemory", 0)
    deployment.wait_until(
        lambda: {line[0] for line in deployment.notes("ran")} == set(tasks), "ten runs"
    )
    deployment.wait_until(lambda: unacknowledged(private_redis) == 0, "the acknowledgements")
    deployment.stop_all()
