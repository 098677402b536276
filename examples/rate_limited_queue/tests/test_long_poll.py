"""Waiting for jobs: at once when there is one, at no cost while there is none."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from rate_limited_queue.client import Client

Start = Callable[..., str]


def test_a_job_of_another_server_ends_the_wait_at_once(start_server: Start) -> None:
    waiting, other = start_server(), start_server()
    with ThreadPoolExecutor(1) as pool, Client(waiting) as one, Client(other) as two:
        for _ in range(3):
            future = pool.submit(one.dequeue, "sms", 10)
            time.sleep(0.3)
            started = time.monotonic()
            two.enqueue("sms", "a", "1", 0)
            assert future.result()[0] == 200
            assert time.monotonic() - started < 0.5
            two.finish("sms", "a", "1")


def test_the_wait_ends_when_the_interval_is_over_or_changed(client: Client) -> None:
    client.enqueue("sms", "a", "1", 600)
    client.enqueue("sms", "a", "2", 600)
    client.dequeue("sms")
    started = time.monotonic()
    assert client.dequeue("sms", wait=10)[1]["job_id"] == "2"
    assert 0.5 < time.monotonic() - started < 1
    client.enqueue("sms", "a", "3", 60_000)
    with Client(client.url) as other:
        timer = threading.Timer(0.3, other.interval, ("sms", "a", 0))
        timer.start()
        started = time.monotonic()
        assert client.dequeue("sms", wait=10)[1]["job_id"] == "3"
        assert time.monotonic() - started < 1
        timer.join()


def test_an_expired_job_ends_the_wait(start_server: Start) -> None:
    with Client(start_server(RLQ_SHARQ_JOB_EXPIRE_INTERVAL=300)) as client:
        client.enqueue("sms", "a", "1", 0)
        client.dequeue("sms")
        assert client.dequeue("sms", wait=5)[1]["job_id"] == "1"


def test_the_wait_is_over_in_time(client: Client) -> None:
    started = time.monotonic()
    assert client.dequeue("sms", wait=0.3) == (404, {"status": "failure"})
    assert 0.3 <= time.monotonic() - started < 0.8
    assert client.call("GET", "/dequeue/sms/?wait=61")[0] == 400
    assert client.call("GET", "/dequeue/sms/?wait=x")[0] == 400
    assert client.call("GET", "/dequeue/sms/?wait=nan")[0] == 400


def test_requests_that_gave_up_leave_nothing(client: Client) -> None:
    for number in range(3):
        assert client.dequeue(f"type{number}", wait=0.05)[0] == 404
    assert b"rate_limited_queue_waiting_requests 0" in _page(client)
    client.enqueue("type1", "a", "1", 0)
    assert client.dequeue("type1", wait=1)[0] == 200


def test_a_batch_waits_for_its_first_job(client: Client) -> None:
    jobs = [{"queue_id": f"q{n}", "job_id": "1", "interval": 0, "payload": {}} for n in range(5)]
    with Client(client.url) as other:
        timer = threading.Timer(0.2, other.call, ("POST", "/enqueue/sms/", jobs))
        timer.start()
        found: list[str] = []
        while len(found) < 5:
            status, answer = client.dequeue("sms", wait=5, count=10)
            assert status == 200
            found += [job["queue_id"] for job in answer["jobs"]]
        assert sorted(found) == [f"q{n}" for n in range(5)]
        timer.join()


def test_a_client_that_went_away_gets_no_job(client: Client) -> None:
    for _ in range(5):
        with Client(client.url, timeout=0.2) as impatient, pytest.raises(TimeoutError):
            impatient.call("GET", "/dequeue/sms/?wait=10")
    time.sleep(0.3)
    client.enqueue("sms", "a", "1", 0)
    time.sleep(0.2)
    assert client.dequeue("sms")[0] == 200


def test_two_thousand_waiting_clients_cost_the_store_nothing(
    start_server: Start, redis_client: redis.Redis, prefix: str
) -> None:
    url = start_server(RLQ_SHARQ_ENABLE_REQUEUE_SCRIPT="false")
    port = int(url.rpartition(":")[2])

    async def wait(ready: list[int]) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /dequeue/sms/?wait=30 HTTP/1.1\r\nHost: x\r\n\r\n")
        ready.append(1)
        try:
            answer = await reader.read(12)
        finally:
            writer.close()
        return answer

    async def scenario() -> None:
        ready: list[int] = []
        waiting = [asyncio.create_task(wait(ready)) for _ in range(2000)]
        while len(ready) < 2000:
            await asyncio.sleep(0.05)
        with Client(url) as client:
            deadline = time.monotonic() + 30
            while b"waiting_requests 2000" not in _page(client):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            with redis_client.monitor() as monitor:  # type: ignore[no-untyped-call]
                await asyncio.sleep(1.5)
                redis_client.echo(f"{prefix}-end")
                seen = []
                for command in monitor.listen():
                    if f"{prefix}-end" in command["command"]:
                        break
                    seen.append(command["command"])
            assert [one for one in seen if prefix in one] == []
            for number in range(2000):
                client.enqueue("sms", f"q{number % 100}", str(number), 0)
        answers = await asyncio.wait_for(asyncio.gather(*waiting), 30)
        assert set(answers) == {b"HTTP/1.1 200"}

    asyncio.run(scenario())


def _page(client: Client) -> bytes:
    client._connection.request("GET", "/prometheus/")
    return client._connection.getresponse().read()
