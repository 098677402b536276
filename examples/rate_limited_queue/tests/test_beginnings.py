"""The limit holds where work begins, whatever begins it; no task is lost, none runs twice."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import chain, chord, group
from kombu import Connection
from rate_limited_queue import limit_for, limited, submit
from rate_limited_queue.errors import UnknownQueue

#: ms between two beginnings, in all of these tests.
INTERVAL = 700
#: ms by which a task under load notes its time later than it began.
JITTER = 30
RABBITMQ_URL = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/0")


@pytest.fixture(params=["embedded", "rabbitmq", "redis"])
def on_each(
    request: pytest.FixtureRequest,
    make_deployment: Callable[..., Any],
    start_server: Callable[..., str],
    redis_client: redis.Redis,
) -> Iterator[Any]:
    """A deployment on each broker, with a server, a dispatcher and two workers."""
    name = f"q{uuid.uuid4().hex[:8]}"
    environ = {}
    if request.param != "embedded":
        environ = {
            "CELERY_TASK_DEFAULT_EXCHANGE": f"{name}-exchange",
            "CELERY_PLATFORM_QUEUE_NAME": f"{name}-monitor",
            "CELERY_TASK_DEFAULT_QUEUE": f"{name}-celery",
            "CELERY_TASK_DEFAULT_ROUTING_KEY": f"{name}-celery",
            "CELERY_BROKER_URL": RABBITMQ_URL if request.param == "rabbitmq" else REDIS_URL,
        }
        if request.param == "redis":
            options = f'{{"global_keyprefix": "{name}:", "visibility_timeout": 3600}}'
            environ["CELERY_BROKER_TRANSPORT_OPTIONS"] = options
    found = make_deployment(name, **environ)
    start_server()
    yield found
    found.close()
    if request.param == "rabbitmq":
        with Connection(RABBITMQ_URL) as connection:
            channel = connection.channel()
            for queue in (name, f"{name}-monitor", f"{name}-celery"):
                channel.queue_delete(queue)
            channel.exchange_delete(f"{name}-exchange")
    for key in redis_client.scan_iter(match=f"{name}:*", count=1000):
        redis_client.unlink(key)


def check(deployment: Any, customer: str, beginnings: int, quiet: float = 1.5) -> None:
    """So many beginnings of a customer come, none of them early, and no more."""
    deployment.wait_until(
        lambda: len(deployment.gaps(customer)) >= beginnings - 1, f"{beginnings} of {customer}"
    )
    time.sleep(quiet)
    gaps = deployment.gaps(customer)
    assert len(gaps) == beginnings - 1, deployment.notes()
    assert min(gaps, default=INTERVAL) >= INTERVAL - JITTER, gaps


def is_finished(customer: str) -> bool:
    try:
        return bool(limit_for(customer).interval != INTERVAL)
    except UnknownQueue:
        return True


def test_retries_rejections_and_replacements(on_each: Any) -> None:
    on_each.monitor()
    for name in ("one", "two"):
        on_each.worker(name, 2)
    on_each.dispatcher()
    tasks = {name: on_each.tasks[f"{on_each.queue}.{name}"] for name in ("often", "auto", "turn")}
    results = {}
    for name, customer, arguments in (
        ("often", "often", []),
        ("auto", "auto", []),
        ("turn", "one", ["one"]),
        ("turn", "chain", ["chain"]),
        ("turn", "group", ["group"]),
        ("turn", "chord", ["chord"]),
    ):
        results[customer] = submit(
            tasks[name], [customer, *arguments], queue_id=customer, interval=INTERVAL
        )
    end = on_each.tasks[f"{on_each.queue}.end"]
    results["rejected"] = submit(end, ["rejected"], queue_id="rejected", interval=INTERVAL)
    for customer, beginnings in {
        "often": 5,
        "auto": 3,
        "one": 2,
        "chain": 3,
        "group": 3,
        "chord": 4,
        "rejected": 2,
    }.items():
        check(on_each, customer, beginnings, quiet=0)
    time.sleep(2)
    assert len(on_each.notes()) == 22, "no task ran twice"
    expected = {"often": 4, "auto": "done", "one": 1, "chain": 2, "group": [1, 2], "chord": 3}
    for customer, value in expected.items():
        assert results[customer].get(timeout=30) == value
    for customer in (*expected, "rejected"):
        on_each.wait_until(lambda customer=customer: is_finished(customer), f"{customer}'s end")
    attempts = on_each.ledger.attempts(results["often"].id)
    assert [one.retries for one in attempts] == [0, 1, 2, 3, 4]


def test_retries_that_name_headers_or_raise_nothing(on_each: Any) -> None:
    for name in ("one", "two"):
        on_each.worker(name, 2)
    on_each.dispatcher()
    named, apart, send = (
        on_each.tasks[f"{on_each.queue}.{one}"] for one in ("named", "apart", "send")
    )
    result = submit(named, ["named"], queue_id="named", interval=INTERVAL, headers={"tenant": 5})
    submit(apart, ["apart"], queue_id="apart", interval=INTERVAL)
    linked = send.si("linked", 0)
    linked.link(send.si("linked", 1))
    limited(linked, queue_id="linked", interval=INTERVAL).apply_async()
    check(on_each, "named", 4, quiet=0)
    check(on_each, "linked", 2, quiet=0)
    check(on_each, "apart", 4)
    assert result.get(timeout=30) == 2
    for customer in ("named", "apart", "linked"):
        on_each.wait_until(lambda customer=customer: is_finished(customer), f"{customer}'s end")


def test_lost_processes_and_workers(on_each: Any) -> None:
    first = on_each.worker("first", 1)
    on_each.dispatcher()
    die, slow = (on_each.tasks[f"{on_each.queue}.{name}"] for name in ("die", "slow"))
    # Its pool process dies: the worker gives the message back at once.
    result = submit(die, ["process"], queue_id="process", interval=INTERVAL)
    check(on_each, "process", 2)
    assert result.get(timeout=30) is None
    # All of the worker dies: the broker delivers the message again, or the lease ends.
    submit(slow, ["worker", 1.5], queue_id="worker", interval=INTERVAL)
    on_each.wait_until(lambda: len(on_each.notes()) == 3, "the slow task")
    first.kill()
    on_each.worker("second", 2)
    check(on_each, "worker", 2)
    on_each.wait_until(lambda: is_finished("worker"), "its end")


def test_what_goes_past_the_queue(on_each: Any) -> None:
    on_each.worker("one", 4)
    on_each.dispatcher()
    send = on_each.tasks[f"{on_each.queue}.send"]
    members = [
        limited(send.si("canvas", n), queue_id="canvas", interval=INTERVAL) for n in range(6)
    ]
    results = [
        group(members[:2]).apply_async(),
        chain(members[2:4]).apply_async(),
        chord(members[4:], limited(send.si("canvas", 6), queue_id="canvas")).apply_async(),
    ]
    # A key that has a limit is known by its name alone; one that has none is not limited.
    submit(send, ["named", 0], queue_id="named", interval=INTERVAL)
    check(on_each, "named", 1, quiet=0)
    for number in range(1, 4):
        send.apply_async(
            ["named", number], headers={"queue_id": "named"}, countdown=0.2, task_id=f"a.{number}"
        )
    for number in range(3):
        send.apply_async(["unknown", number], headers={"queue_id": "no such key"})
    check(on_each, "named", 4, quiet=0)
    check(on_each, "canvas", 7)
    assert [result.get(timeout=30) for result in results] == [[0, 1], 3, 6]
    assert on_each.app.AsyncResult("a.3").get(timeout=30) == 3
    assert len([line for line in on_each.notes() if line[2] == "unknown"]) == 3


def test_a_copy_of_a_message_whose_run_goes_on(deployment: Any) -> None:
    """As after a visibility timeout, and after a message that a worker could not acknowledge."""
    deployment.worker("one", 4)
    deployment.dispatcher()
    slow = deployment.tasks["sms.slow"]
    result = submit(slow, ["c", 3], queue_id="c", interval=INTERVAL)
    deployment.wait_until(deployment.notes, "its beginning")
    token = deployment.notes()[0][1]
    copies = {"queue_id": "c", "rate_limited_queue": ["celery", "c", result.id, token]}
    slow.apply_async(["c", 3], task_id=result.id, headers=copies)
    slow.apply_async(["c", 3], task_id=result.id, headers={"queue_id": "c"})
    deployment.wait_until(lambda: result.state == "SUCCESS", "its end")
    slow.apply_async(["c", 3], task_id=result.id, headers=copies)
    time.sleep(1.5)
    assert len(deployment.notes()) == 1
    assert result.state == "SUCCESS"


def test_an_interval_that_is_made_longer_while_tasks_wait_for_a_worker(deployment: Any) -> None:
    deployment.dispatcher()
    for number in range(4):
        submit(deployment.tasks["sms.send"], ["c", number], queue_id="c", interval=0)
    deployment.wait_until(lambda: not limit_for("c").waiting, "all of them to be published")
    limit_for("c").interval = INTERVAL
    deployment.worker("one", 4)
    check(deployment, "c", 4)
    assert sorted(line[3] for line in deployment.notes()) == ["0", "1", "2", "3"]
