"""At least once, nothing lost, nothing twice that was finished, and nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import pytest
import redis
from rate_limited_queue.client import Client

Start = Callable[..., str]


def keys_of(client: redis.Redis, prefix: str) -> list[str]:
    """The keys of a prefix but for what is not of a queue: counters, totals, types, status."""
    found = [key.decode() for key in client.scan_iter(match=f"{prefix}*", count=1000)]
    others = (":n", ":types", ":status")
    return sorted(key for key in found if not key.endswith(others) and ":m:" not in key)


def test_expired_jobs_keep_their_places(start_server: Start) -> None:
    with Client(start_server(RLQ_SHARQ_JOB_EXPIRE_INTERVAL=400)) as client:
        for number in range(4):
            client.enqueue("sms", "a", str(number), 0)
        taken = [client.dequeue("sms")[1]["job_id"] for _ in range(3)]
        assert taken == ["0", "1", "2"]
        client.enqueue("sms", "a", "4", 0)
        time.sleep(0.7)
        again = [client.dequeue("sms")[1]["job_id"] for _ in range(5)]
        assert again == ["0", "1", "2", "3", "4"]


def test_requeue_limit_and_dead_letters(start_server: Start) -> None:
    with Client(start_server(RLQ_SHARQ_JOB_EXPIRE_INTERVAL=100)) as client:
        payload = {"text": 'quote " and ä'}
        client.enqueue("sms", "a", "1", 0, payload, requeue_limit=2)
        left = []
        for _ in range(3):
            left.append(client.dequeue("sms", wait=3)[1]["requeues_remaining"])
        assert left == [2, 1, 0]
        assert client.dequeue("sms", wait=0.5)[0] == 404
        status, dead = client.call("GET", "/dead/sms/")
        assert (status, dead["total"]) == (200, 1)
        job = dead["jobs"][0]
        assert abs(job.pop("died_at") / 1000 - time.time()) < 10
        assert job == {"queue_id": "a", "job_id": "1", "payload": payload}
        assert client.call("GET", "/job/sms/a/1/")[1]["state"] == "dead"
        counts = client.call("GET", "/metrics/sms/a/")[1]
        assert sum(counts["enqueue_counts"].values()) == 1
        assert sum(counts["dequeue_counts"].values()) == 3, "a requeue counts as a dequeue only"
        assert client.enqueue("sms", "a", "1", 0)[0] == 201
        client.dequeue("sms")
        client.finish("sms", "a", "1")
        assert client.call("DELETE", "/dead/sms/") == (200, {"status": "success", "removed": 1})
        assert client.call("GET", "/dead/sms/")[1]["jobs"] == []


def test_the_dead_letter_list_is_bounded(start_server: Start) -> None:
    settings = {"RLQ_SHARQ_JOB_EXPIRE_INTERVAL": 1, "RLQ_SHARQ_DEAD_LETTER_LIMIT": 3}
    with Client(start_server(**settings, RLQ_SHARQ_DEFAULT_JOB_REQUEUE_LIMIT=0)) as client:
        for number in range(5):
            client.enqueue("sms", "a", str(number), 0)
            client.dequeue("sms")
            deadline = time.monotonic() + 5
            while client.call("GET", f"/job/sms/a/{number}/")[1].get("state") != "dead":
                assert time.monotonic() < deadline
        dead = client.call("GET", "/dead/sms/?count=2")[1]
        assert dead["total"] == 3
        assert [job["job_id"] for job in dead["jobs"]] == ["2", "3"]
        dead = client.call("GET", "/dead/sms/?offset=2")[1]
        assert [job["job_id"] for job in dead["jobs"]] == ["4"]


def test_a_late_finish_ends_no_lease_but_its_own(start_server: Start) -> None:
    with Client(start_server(RLQ_SHARQ_JOB_EXPIRE_INTERVAL=300)) as client:
        client.enqueue("sms", "a", "1", 0)
        first = client.dequeue("sms")[1]
        second = client.dequeue("sms", wait=3)[1]
        assert first["token"] != second["token"]
        assert client.finish("sms", "a", "1", first["token"])[0] == 404
        assert client.call("GET", "/job/sms/a/1/")[1]["state"] == "active"
        assert client.finish("sms", "a", "1", second["token"])[0] == 200


def test_a_waiting_job_cannot_be_finished(client: Client) -> None:
    client.enqueue("sms", "a", "1", 0)
    assert client.finish("sms", "a", "1")[0] == 404
    assert client.dequeue("sms")[0] == 200


def test_a_job_id_is_not_queued_twice(client: Client) -> None:
    duplicate = (200, {"status": "queued", "duplicate": True})
    assert client.enqueue("sms", "a", "1", 0, {"n": 1})[0] == 201
    assert client.enqueue("sms", "a", "1", 0, {"n": 2}) == duplicate
    assert client.enqueue("sms", "b", "1", 0)[0] == 201, "another queue id has other jobs"
    assert client.dequeue("sms")[1]["payload"] == {"n": 1}
    assert client.enqueue("sms", "a", "1", 0, {"n": 3}) == duplicate
    client.dequeue("sms")
    assert client.dequeue("sms")[0] == 404
    client.finish("sms", "a", "1")
    assert client.enqueue("sms", "a", "1", 0, {"n": 4})[0] == 201
    assert client.dequeue("sms")[1]["payload"] == {"n": 4}


NAMES = ["active", "time", "payload", "interval", "metrics", "r", "a", "d", "n", "w", "types", "q"]


def test_no_name_collides_with_another(client: Client) -> None:
    for queue_type in NAMES:
        for queue_id in NAMES:
            assert client.enqueue(queue_type, queue_id, "payload", 0, {"t": queue_type})[0] == 201
    for queue_type in NAMES:
        assert sorted(client.call("GET", f"/metrics/{queue_type}/")[1]["queue_ids"]) == sorted(
            NAMES
        )
        jobs = client.dequeue(queue_type, count=100)[1]["jobs"]
        assert sorted(job["queue_id"] for job in jobs) == sorted(NAMES)
        assert {job["payload"]["t"] for job in jobs} == {queue_type}
        for job in jobs:
            assert client.finish(queue_type, job["queue_id"], "payload")[0] == 200


@pytest.mark.parametrize("purge", [False, True])
def test_delete_while_dequeueing_and_enqueueing(start_server: Start, purge: bool) -> None:
    url = start_server()
    over = threading.Event()
    taken: list[tuple[str, str]] = []

    def consume() -> None:
        with Client(url) as client:
            while not over.is_set():
                status, job = client.dequeue("sms")
                if status == 200:
                    taken.append((job["queue_id"], job["job_id"]))
                    client.finish("sms", job["queue_id"], job["job_id"], job["token"])

    def delete() -> None:
        with Client(url) as client:
            while not over.is_set():
                client.call("DELETE", "/deletequeue/sms/deleted/", {"purge_all": purge})

    threads = [threading.Thread(target=one) for one in (consume, consume, delete)]
    for thread in threads:
        thread.start()
    with Client(url) as client:
        for number in range(300):
            assert client.enqueue("sms", "deleted", f"d{number}", 0)[0] == 201
            assert client.enqueue("sms", "kept", f"k{number}", 0)[0] == 201
        deadline = time.monotonic() + 10
        while len([1 for queue, _ in taken if queue == "kept"]) < 300:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        over.set()
        for thread in threads:
            thread.join()
        assert len(set(taken)) == len(taken)
        client.call("DELETE", "/deletequeue/sms/deleted/", {"purge_all": True})
        assert client.call("GET", "/metrics/sms/")[1]["queue_ids"] == []


def test_a_purged_job_that_comes_again_is_a_new_one(start_server: Start) -> None:
    with Client(start_server(RLQ_SHARQ_JOB_EXPIRE_INTERVAL=400)) as client:
        client.enqueue("sms", "a", "1", 0)
        old = client.dequeue("sms")[1]
        client.call("DELETE", "/deletequeue/sms/a/", {"purge_all": True})
        time.sleep(0.3)
        client.enqueue("sms", "a", "1", 0)
        new = client.dequeue("sms")[1]
        time.sleep(0.3)  # The end of the old lease is not that of the new one.
        assert client.finish("sms", "a", "1", old["token"])[0] == 404
        assert client.finish("sms", "a", "1", new["token"])[0] == 200


def test_large_queues_are_deleted_in_chunks(client: Client) -> None:
    for purge in (False, True):
        for start in range(0, 3000, 1000):
            jobs = [
                {"queue_id": "a", "job_id": str(start + n), "interval": 0, "payload": {}}
                for n in range(1000)
            ]
            assert client.call("POST", "/enqueue/sms/", jobs)[0] == 201
        assert len(client.dequeue("sms", count=1000)[1]["jobs"]) == 1000
        answer = client.call("DELETE", "/deletequeue/sms/a/", {"purge_all": purge})[1]
        assert answer["status"] == "Success"
        assert client.dequeue("sms")[0] == 404
        assert client.call("GET", "/metrics/sms/a/")[1]["queue_length"] == 0
        ids = client.call("GET", "/metrics/sms/")[1]["queue_ids"]
        assert ids == ([] if purge else ["a"]), "1,000 jobs are active still, unless purged"


def test_max_queued_length_holds_under_concurrency(start_server: Start) -> None:
    urls = [start_server(), start_server()]

    def enqueue(url: str, number: int) -> int:
        with Client(url) as client:
            return client.enqueue("sms", "a", str(number), 0, {"max_queued_length": 5})[0]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(enqueue, urls * 30, range(60)))
    assert sorted(found) == [201] * 5 + [429] * 55


def test_a_drained_and_finished_store_keeps_nothing(
    client: Client, redis_client: redis.Redis, prefix: str
) -> None:
    for number in range(50):
        client.enqueue("sms", f"free{number}", "1", 0)
        client.enqueue("sms", f"limited{number}", "1", 1200)
    jobs = client.dequeue("sms", count=100)[1]["jobs"]
    assert len(jobs) == 100
    for job in jobs:
        client.finish("sms", job["queue_id"], job["job_id"])
    assert keys_of(redis_client, prefix) == sorted(
        f"{prefix}:{{sms}}:s:limited{number}" for number in range(50)
    )
    time.sleep(1.3)
    assert keys_of(redis_client, prefix) == []


def test_nothing_is_left_of_a_purged_queue(
    client: Client, redis_client: redis.Redis, prefix: str
) -> None:
    for number in range(5):
        client.enqueue("sms", "a", str(number), 60_000)
    client.dequeue("sms")
    client.call("DELETE", "/deletequeue/sms/a/", {"purge_all": True})
    assert keys_of(redis_client, prefix) == []
    client.enqueue("sms", "a", "1", 0)
    client.call("DELETE", "/deletequeue/sms/a/")
    assert keys_of(redis_client, prefix) == []


def test_finished_jobs_never_come_again(start_server: Start) -> None:
    """Four clients on two servers with short leases: whatever is finished is finished."""
    urls = [start_server(RLQ_SHARQ_JOB_EXPIRE_INTERVAL=30) for _ in range(2)]
    with Client(urls[0]) as client:
        for number in range(200):
            client.enqueue("sms", f"q{number % 20}", str(number), 0)
    finished: list[str] = []

    def consume(url: str) -> None:
        with Client(url) as client:
            while len(finished) < 200:
                status, job = client.dequeue("sms", wait=0.2)
                if status != 200:
                    continue
                if hash(job["token"]) % 3 == 0:
                    time.sleep(0.1)  # longer than its lease
                status, _ = client.finish("sms", job["queue_id"], job["job_id"], job["token"])
                if status == 200:
                    finished.append(job["job_id"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(consume, urls * 2))
    assert sorted(finished) == sorted(str(number) for number in range(200))


def test_skewed_server_clocks_change_nothing(start_server: Start, tmp_path: Path) -> None:
    """A server that believes to be 30 s ahead: a real process, whose clock is turned forward."""
    code = "import time\n_real = time.time\ntime.time = lambda: _real() + 30\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    ahead = start_server(PYTHONPATH=tmp_path, RLQ_SHARQ_JOB_EXPIRE_INTERVAL=2000)
    right = start_server(RLQ_SHARQ_JOB_EXPIRE_INTERVAL=2000)
    with Client(ahead) as one, Client(right) as other:
        one.enqueue("sms", "a", "1", 500)
        one.enqueue("sms", "a", "2", 500)
        first = other.dequeue("sms")[1]
        assert one.dequeue("sms")[0] == 404
        second = one.dequeue("sms", wait=3)[1]
        assert int(second["token"]) - int(first["token"]) >= 500_000
        time.sleep(0.3)
        assert other.finish("sms", "a", "1", first["token"])[0] == 200
        assert other.finish("sms", "a", "2", second["token"])[0] == 200


def test_batches(client: Client) -> None:
    jobs = [
        {"queue_id": f"q{n}", "job_id": str(n), "interval": 0, "payload": {"n": n}}
        for n in range(5)
    ]
    status, answer = client.call("POST", "/enqueue/sms/", {"jobs": [*jobs, jobs[0]]})
    assert status == 201
    queued = {"status": "queued"}
    assert answer == {
        "status": "queued",
        "jobs": [*repeat(queued, 5), queued | {"duplicate": True}],
    }
    wrong = [*jobs, {**jobs[0], "job_id": "new"}, {**jobs[0], "interval": -1}]
    status, answer = client.call("POST", "/enqueue/sms/", wrong)
    assert (status, answer["message"]) == (400, "`jobs[6].interval` has an invalid value.")
    status, answer = client.dequeue("sms", count=100)
    assert [job["payload"]["n"] for job in answer["jobs"]] == list(range(5))
    assert client.dequeue("sms", count=100) == (404, {"status": "failure"})
    done = [
        {"queue_type": "sms", **{k: job[k] for k in ("queue_id", "job_id", "token")}}
        for job in answer["jobs"]
    ]
    done[1]["token"] = "\ud800"  # half of a pair, which UTF-8 has no bytes for
    status, answer = client.call("POST", "/finish/", {"jobs": done})
    assert (status, answer["message"]) == (400, "`jobs[1].token` has an invalid value.")
    done[1]["token"] = "5"
    del done[2]["token"]
    status, answer = client.call("POST", "/finish/", {"jobs": done})
    assert status == 200
    assert [one["status"] for one in answer["jobs"]] == ["success", "failure", *["success"] * 3]


def test_the_state_of_a_job(client: Client) -> None:
    assert client.call("GET", "/job/sms/a/1/") == (404, {"status": "failure"})
    for number in range(3):
        client.enqueue("sms", "a", str(number), 10_000, requeue_limit=7)
    client.dequeue("sms")
    active = client.call("GET", "/job/sms/a/0/")[1]
    assert (active["state"], active["requeues_remaining"]) == ("active", 7)
    assert 59_000 < active["expires_in"] <= 60_000
    queued = client.call("GET", "/job/sms/a/2/")[1]
    assert (queued["state"], queued["jobs_before"]) == ("queued", 1)
    assert 9_000 < queued["next_release_in"] <= 10_000
    client.finish("sms", "a", "0")
    assert client.call("GET", "/job/sms/a/0/")[0] == 404
