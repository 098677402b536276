"""Push for Celery, with real workers, a monitor and a dispatcher, each a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from rate_limited_queue import DuplicateTask, limit_for, submit
from rate_limited_queue.errors import InvalidField, UnknownQueue
from rate_limited_queue.processes import free_port


def test_twenty_keys_and_three_workers(deployment: Any, start_server: Callable[..., str]) -> None:
    start_server()  # gives expired jobs back
    deployment.monitor()
    for name in ("one", "two", "three"):
        deployment.worker(name, 1)
    deployment.dispatcher()
    ids = set()
    intervals = {f"c{number}": 100 + 40 * number for number in range(20)}
    for number in range(4):
        for customer, interval in intervals.items():
            result = submit(
                deployment.tasks["sms.send"],
                [customer, number],
                queue_id=customer,
                interval=interval,
                headers={"tenant": customer.upper()},
            )
            ids.add(result.id)
    deployment.wait_until(lambda: len(deployment.notes()) == 80, "all tasks")
    releases = defaultdict(list)
    for _, release, customer, done in deployment.notes():
        releases[customer].append((int(release), int(done)))
    for customer, found in releases.items():
        found.sort()
        assert [number for _, number in found] == [0, 1, 2, 3], "first in, first out"
        for (first, _), (second, _) in zip(found, found[1:], strict=False):
            assert second - first >= intervals[customer] * 1000
    deployment.wait_until(
        lambda: deployment.ledger.summary().states.get("SUCCESS") == 80, "the ledger"
    )
    assert {task.task_id for task in deployment.ledger.find(limit=1000)} == ids
    page = deployment.ledger.find(headers={"queue_id": "c7"})
    assert len(page.tasks) == 4
    assert {task.headers["tenant"] for task in page if task.headers} == {"C7"}


def test_tasks_that_waited_for_a_worker_do_not_come_in_a_burst(deployment: Any) -> None:
    deployment.dispatcher()
    for number in range(4):
        submit(deployment.tasks["sms.send"], ["c", number], queue_id="c", interval=300)
    time.sleep(1.5)  # Without workers all four would be due.
    assert limit_for("c").waiting == 3
    deployment.worker()
    deployment.wait_until(lambda: len(deployment.notes()) == 4, "all tasks")
    times = [int(line[0]) / 1e6 for line in deployment.notes()]
    for first, second in zip(times, times[1:], strict=False):
        assert second - first > 290, "by this process's clock, which is not the store's"


def test_a_lost_worker_and_ends_of_all_kinds(
    deployment: Any, start_server: Callable[..., str]
) -> None:
    start_server()
    first = deployment.worker("first", 1)
    deployment.dispatcher()
    tasks = deployment.tasks
    # A worker that has acknowledged early, or whose broker is slow to notice, is just gone.
    submit(tasks["sms.slow"], ["lost", 60], queue_id="lost", interval=0)
    deployment.wait_until(lambda: len(deployment.notes()) == 1, "the slow task")
    first.kill()
    (deployment.folder / "notes").unlink()
    deployment.worker("second", 2)
    # Longer than its lease, which is renewed.
    submit(tasks["sms.slow"], ["long", 3], queue_id="long", interval=0)
    submit(tasks["sms.fail"], ["failing"], queue_id="failing", interval=0)
    submit(tasks["sms.again"], ["retrying"], queue_id="retrying", interval=0)
    deployment.wait_until(
        lambda: (
            sorted(line[2] for line in deployment.notes())
            == ["failing", "long", "lost", "retrying", "retrying", "retrying"]
        ),
        "each of the tasks to run as often as it has to",
    )
    time.sleep(4)
    assert len(deployment.notes()) == 6, "none of them came again"
    for name in ("long", "failing", "retrying"):
        with pytest.raises(UnknownQueue):
            _ = limit_for(name).interval
    assert limit_for("lost").interval == 0, "it runs again, and is not forgotten"


def test_what_is_neither_a_success_nor_a_failure_ends_the_job(
    deployment: Any, start_server: Callable[..., str]
) -> None:
    start_server()
    deployment.worker(concurrency=1)
    deployment.dispatcher()
    tasks = deployment.tasks
    for how in ("ignored", "replaced", "rejected"):
        submit(tasks["sms.end"], [how], queue_id=how, interval=0)
    deployment.wait_until(lambda: len(deployment.notes()) == 5, "two of rejected and replaced each")
    submit(tasks["sms.slow"], ["c", 1.5], queue_id="slow", interval=0)
    deployment.wait_until(lambda: len(deployment.notes()) == 6, "the slow task")
    # Meanwhile these two wait in the worker.
    submit(tasks["sms.send"], ["c", 1], queue_id="expired", interval=60_000, expires=0.2)
    revoked = submit(tasks["sms.send"], ["c", 2], queue_id="revoked", interval=0)
    time.sleep(0.5)
    deployment.app.control.revoke(revoked.id)
    submit(tasks["sms.send"], ["c", 3], queue_id="last", interval=0)
    deployment.wait_until(lambda: len(deployment.notes()) == 7, "the last task")
    for name in ("ignored", "replaced", "rejected", "revoked"):
        with pytest.raises(UnknownQueue):
            _ = limit_for(name).interval
    submit(tasks["sms.send"], ["c", 4], queue_id="expired", interval=0)
    deployment.wait_until(lambda: len(deployment.notes()) == 8, "what is behind it", timeout=10)
    time.sleep(1.5)
    assert [line[2:] for line in deployment.notes()[6:]] == [["c", "3"], ["c", "4"]]


def test_a_task_that_cannot_begin_has_not_failed(deployment: Any) -> None:
    deployment.dispatcher()
    result = submit(deployment.tasks["sms.send"], ["c", 1], queue_id="c", interval=0)
    here = dict(deployment.environ)
    deployment.environ["RLQ_REDIS_PORT"] = str(free_port())
    worker = deployment.worker("away")
    deployment.wait_until(
        lambda: "reject requeue=True: Redis is away" in worker.text(), "its rejection"
    )
    worker.kill()
    deployment.environ = here
    deployment.worker("here")
    deployment.wait_until(lambda: result.state == "SUCCESS", "its success")
    assert "FAILURE" not in {one.state for one in deployment.ledger.attempts(result.id)}


def test_the_interval_can_be_changed_at_any_time(deployment: Any) -> None:
    deployment.worker()
    deployment.dispatcher()
    with pytest.raises(UnknownQueue):
        limit_for("c").interval = 100
    for number in range(3):
        submit(
            deployment.tasks["sms.send"],
            ["c", number],
            queue_id="c",
            interval=None if number else 3_600_000,
        )
    deployment.wait_until(lambda: len(deployment.notes()) == 1, "the first task")
    assert limit_for("c").interval == 3_600_000
    limit_for("c").interval = 200
    deployment.wait_until(lambda: len(deployment.notes()) == 3, "the others", timeout=10)


def test_what_cannot_be_submitted_is_told(deployment: Any) -> None:
    send = deployment.tasks["sms.send"]
    with pytest.raises(InvalidField, match="queue_id"):
        submit(send, queue_id="not one", interval=1)
    with pytest.raises(InvalidField, match="interval"):
        submit(send, queue_id="c", interval=-1)
    with pytest.raises(InvalidField, match="countdown"):
        submit(send, queue_id="c", interval=1, countdown=5)
    with pytest.raises(UnknownQueue, match="give one"):
        submit(send, queue_id="c")
    submit(send, queue_id="c", interval=1, task_id="one")
    with pytest.raises(DuplicateTask):
        submit(send, queue_id="c", interval=1, task_id="one")

    def wait() -> None:
        """No task of a limited app."""

    plain = Celery("plain", set_as_current=False)
    with pytest.raises(TypeError, match="task_cls"):
        submit(plain.task(wait, name="plain"), queue_id="c", interval=1)


def test_the_dispatcher_stops_when_it_is_asked_to(deployment: Any) -> None:
    child = deployment.dispatcher()
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait(10) == 0
    done = subprocess.run(
        [sys.executable, "-m", "rate_limited_queue.cli", "dispatch", "-A", "nowhere"],
        env={**os.environ, **deployment.environ},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "'nowhere' is no Celery app" in done.stderr


def test_a_task_that_is_no_queues_runs_as_any_other(deployment: Any) -> None:
    deployment.worker()
    result: Any = deployment.tasks["sms.send"].delay("c", 1)
    deployment.wait_until(lambda: deployment.notes(), "the task")
    assert deployment.notes()[0][1:] == ["0", "c", "1"]
    deployment.wait_until(
        lambda: deployment.app.AsyncResult(result.id).state == "SUCCESS", "its result"
    )
