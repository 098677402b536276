"""The limit is exact: no two releases of a queue id closer than its interval.

A token is the store's clock at the release, in microseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rate_limited_queue.client import Client


def release(client: Client, wait: float = 5) -> dict[str, Any]:
    status, job = client.dequeue("sms", wait=wait)
    assert status == 200
    found: dict[str, Any] = job
    return found


def gap(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Milliseconds between two releases, by the store's clock."""
    return (int(second["token"]) - int(first["token"])) / 1000


def test_one_job_an_interval(client: Client) -> None:
    for number in range(3):
        client.enqueue("sms", "a", str(number), 200)
    jobs = [release(client) for _ in range(3)]
    assert [job["job_id"] for job in jobs] == ["0", "1", "2"]
    for first, second in zip(jobs, jobs[1:], strict=False):
        assert 200 <= gap(first, second) < 300


def test_after_drain_and_refill_also_beyond_the_job_expiry(
    start_server: Callable[..., str],
) -> None:
    with Client(start_server(RLQ_SHARQ_JOB_EXPIRE_INTERVAL=100)) as client:
        client.enqueue("sms", "a", "1", 700)
        first = release(client)
        client.finish("sms", "a", "1")
        time.sleep(0.3)
        client.enqueue("sms", "a", "2", 700)
        assert client.dequeue("sms")[0] == 404
        assert 700 <= gap(first, release(client)) < 800


def test_requeued_onto_a_drained_queue(start_server: Callable[..., str]) -> None:
    with Client(start_server(RLQ_SHARQ_JOB_EXPIRE_INTERVAL=100)) as client:
        client.enqueue("sms", "a", "1", 600)
        first = release(client)
        second = release(client)
        assert second["job_id"] == "1"
        assert 600 <= gap(first, second) < 700


def test_two_requeued_jobs_after_the_last_waiting_one_was_finished(
    start_server: Callable[..., str],
) -> None:
    with Client(start_server(RLQ_SHARQ_JOB_EXPIRE_INTERVAL=900)) as client:
        for number in range(3):
            client.enqueue("sms", "a", str(number), 300)
        jobs = [release(client) for _ in range(3)]
        client.finish("sms", "a", "2")
        jobs += [release(client) for _ in range(2)]
        assert [job["job_id"] for job in jobs] == ["0", "1", "2", "0", "1"]
        for first, second in zip(jobs, jobs[1:], strict=False):
            assert gap(first, second) >= 300


def test_a_changed_interval_counts_from_the_last_release(client: Client) -> None:
    for number in range(4):
        client.enqueue("sms", "a", str(number), 60_000)
    first = release(client)
    assert client.dequeue("sms")[0] == 404
    client.interval("sms", "a", 300)
    second = release(client)
    assert 300 <= gap(first, second) < 400
    client.interval("sms", "a", 0)
    third = release(client, wait=0)
    client.interval("sms", "a", 250)
    assert gap(third, release(client)) >= 250


def test_the_interval_of_an_enqueue_is_the_queues(client: Client) -> None:
    client.enqueue("sms", "a", "1", 60_000)
    client.enqueue("sms", "a", "2", 60_000)
    first = release(client)
    client.enqueue("sms", "a", "3", 250)
    assert 250 <= gap(first, release(client)) < 350


def test_the_interval_of_a_drained_queue_with_an_active_job(client: Client) -> None:
    client.enqueue("sms", "a", "1", 100)
    first = release(client)
    assert client.interval("sms", "a", 500)[0] == 200
    client.finish("sms", "a", "1")
    client.enqueue("sms", "a", "2", 500)
    assert 500 <= gap(first, release(client)) < 600


def test_the_longest_interval_locks_nothing(client: Client) -> None:
    for number in range(2):
        assert client.enqueue("sms", "a", str(number), 2**53)[0] == 201
    release(client)
    client.finish("sms", "a", "0")
    assert client.dequeue("sms")[0] == 404
    assert client.interval("sms", "a", 0)[0] == 200
    assert release(client)["job_id"] == "1"


def test_delete_does_not_forget_the_last_release(client: Client) -> None:
    client.enqueue("sms", "a", "1", 400)
    client.enqueue("sms", "a", "2", 400)
    first = release(client)
    client.finish("sms", "a", "1")
    assert client.call("DELETE", "/deletequeue/sms/a/")[1]["status"] == "Success"
    client.enqueue("sms", "a", "3", 400)
    assert gap(first, release(client)) >= 400


def test_a_batch_takes_one_of_each_limited_queue(client: Client) -> None:
    for number in range(3):
        client.enqueue("sms", "limited", f"l{number}", 60_000)
        client.enqueue("sms", "free", f"f{number}", 0)
    status, answer = client.dequeue("sms", count=10)
    assert status == 200
    assert sorted(job["job_id"] for job in answer["jobs"]) == ["f0", "f1", "f2", "l0"]


def test_queues_without_a_limit_take_turns(client: Client) -> None:
    for queue in ("zz", "aa"):
        for number in range(40):
            client.enqueue("sms", queue, str(number), 0)
    taken = [release(client, wait=0)["queue_id"] for _ in range(40)]
    assert abs(taken.count("aa") - taken.count("zz")) <= 2
    taken = []
    while len(taken) < 39:
        taken += [job["queue_id"] for job in client.dequeue("sms", count=3)[1]["jobs"]]
    assert abs(taken.count("aa") - taken.count("zz")) <= 4


def test_the_longest_due_queue_comes_first(client: Client) -> None:
    for name in ("c", "a", "b"):
        client.enqueue("sms", name, "1", 1000)
    assert [release(client)["queue_id"] for _ in range(3)] == ["c", "a", "b"]
