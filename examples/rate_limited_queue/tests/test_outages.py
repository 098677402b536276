"""Redis is killed and comes back, servers are killed: no accepted job is lost, all goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

import pytest
import redis
from rate_limited_queue.client import Client
from rate_limited_queue.connection import Pipeline
from rate_limited_queue.processes import Child, free_port, running_server
from redis.asyncio.connection import Connection

Start = Callable[..., str]


class PrivateRedis:
    """A redis-server of this test, with an append-only file."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("redis-server is not on PATH: apt-get install redis-server", pytrace=False)
        self.port = free_port()
        self._folder = folder
        self._command = [
            *(program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)),
            # Not synced: what is written outlives a killed process, and no test waits for the disk.
            *("--appendonly", "yes", "--appendfsync", "no", "--save", ""),
        ]
        self.child: Child | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.child = Child(self._command, self._folder / "redis.log")
        with redis.Redis(port=self.port) as client:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(redis.RedisError):
                    if client.ping():
                        return
                assert time.monotonic() < deadline, self.child.text()
                time.sleep(0.05)

    def kill(self) -> None:
        """Stop it as a crash would."""
        assert self.child is not None
        self.child.kill()


@pytest.fixture
def private_redis(tmp_path: Path) -> Iterator[PrivateRedis]:
    """A redis-server of this test."""
    found = PrivateRedis(tmp_path)
    found.start()
    yield found
    found.kill()


def settings(private: PrivateRedis, **more: object) -> dict[str, str]:
    found = {
        "RLQ_REDIS_CONN_TYPE": "tcp_sock",
        "RLQ_REDIS_PORT": str(private.port),
        "RLQ_SHARQ_JOB_REQUEUE_INTERVAL": "50",
        "RLQ_SHARQ_JOB_EXPIRE_INTERVAL": "1000",
    }
    return {**found, **{name: str(value) for name, value in more.items()}}


def test_redis_is_killed_twice_under_load(private_redis: PrivateRedis, tmp_path: Path) -> None:
    accepted: set[str] = set()
    finished: set[str] = set()
    over, drained = threading.Event(), threading.Event()

    def produce(url: str, name: str) -> None:
        number = 0
        with Client(url) as client:
            while not over.is_set():
                number += 1
                job = f"{name}-{number}"
                with contextlib.suppress(OSError, HTTPException):
                    # After an error it is not known whether it was accepted: the id tells.
                    while client.enqueue("sms", f"q{number % 7}", job, 5)[0] not in (200, 201):
                        time.sleep(0.05)
                        if over.is_set():
                            return
                    accepted.add(job)

    def consume(url: str) -> None:
        with Client(url) as client:
            while not drained.is_set():
                with contextlib.suppress(OSError, HTTPException):
                    status, job = client.dequeue("sms", wait=0.5)
                    if status != 200:
                        continue
                    path = (job["queue_id"], job["job_id"], job["token"])
                    # 503 may mean that it is done, and the answer was lost: 404 tells, then.
                    while client.finish("sms", *path)[0] == 503:
                        time.sleep(0.05)
                    finished.add(job["job_id"])

    with contextlib.ExitStack() as stack:
        urls = [
            stack.enter_context(running_server(tmp_path, settings(private_redis))) for _ in range(2)
        ]
        threads = [threading.Thread(target=consume, args=(url,)) for url in urls]
        producers = [
            threading.Thread(target=produce, args=(url, str(i))) for i, url in enumerate(urls)
        ]
        stack.callback(drained.set)
        stack.callback(over.set)
        for thread in threads + producers:
            thread.start()
        for _ in range(2):
            time.sleep(0.8)
            private_redis.kill()
            time.sleep(0.5)
            with Client(urls[0]) as client:
                assert client.call("GET", "/") == (200, {"message": "Hello, SharQ!"})
                status, answer = client.call("GET", "/deepstatus/")
                assert (status, answer["status"]) == (503, "failure")
                assert client.enqueue("sms", "a", "1", 0)[0] == 503
            private_redis.start()
        time.sleep(0.8)
        over.set()
        for thread in producers:
            thread.join()
        left, deadline = len(accepted - finished), time.monotonic() + 20
        while left:
            time.sleep(0.1)
            before, left = left, len(accepted - finished)
            if left < before:  # However slow the machine is: what is lost stands still.
                deadline = time.monotonic() + 20
            assert time.monotonic() < deadline, f"{left} of {len(accepted)} jobs are lost"
        drained.set()
        for thread in threads:
            thread.join()
        assert len(accepted) > 100
        with Client(urls[0]) as client:
            assert client.call("GET", "/deepstatus/")[0] == 200


def test_expired_jobs_are_requeued_after_an_outage(
    private_redis: PrivateRedis, tmp_path: Path
) -> None:
    with (
        running_server(tmp_path, settings(private_redis)) as url,
        Client(url) as client,
    ):
        client.enqueue("sms", "a", "1", 0)
        first = client.dequeue("sms")[1]
        private_redis.kill()
        time.sleep(1.2)
        private_redis.start()
        second = client.dequeue("sms", wait=5)[1]
        assert second["job_id"] == "1"
        assert second["token"] != first["token"]


def test_a_redis_that_hangs_counts_as_away(private_redis: PrivateRedis, tmp_path: Path) -> None:
    more = settings(private_redis, RLQ_REDIS_TIMEOUT=1)
    with running_server(tmp_path, more) as url, Client(url) as client:
        client.enqueue("sms", "a", "1", 0)
        assert private_redis.child is not None
        os.kill(private_redis.child.pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            assert client.dequeue("sms")[0] == 503
            assert time.monotonic() - started < 5
            # Its system still accepts the new connection, and it says nothing there.
            assert client.dequeue("sms")[0] == 503
            assert time.monotonic() - started < 10
            assert client.call("GET", "/")[0] == 200
        finally:
            os.kill(private_redis.child.pid, signal.SIGCONT)
        deadline = time.monotonic() + 10
        while client.dequeue("sms")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("name", "value"), [("maxmemory", "1"), ("replicaof", "127.0.0.1 1")], ids=["full", "replica"]
)
def test_a_redis_that_cannot_be_written_counts_as_away(
    private_redis: PrivateRedis, tmp_path: Path, name: str, value: str
) -> None:
    with (
        running_server(tmp_path, settings(private_redis)) as url,
        Client(url) as client,
        redis.Redis(port=private_redis.port) as direct,
    ):
        # The type is marked: the script itself meets the error.
        assert client.enqueue("sms", "a", "1", 0)[0] == 201
        if name == "replicaof":
            direct.replicaof(*value.split())
        else:
            direct.config_set(name, value)
        assert client.enqueue("sms", "a", "2", 0)[0] == 503
        assert client.call("GET", "/deepstatus/")[0] == 503


def test_a_command_that_cannot_be_packed_fails_alone(redis_client: redis.Redis) -> None:
    kwargs = redis_client.connection_pool.connection_kwargs

    async def run() -> None:
        address = {name: kwargs[name] for name in ("host", "port") if name in kwargs}
        pipeline = Pipeline(lambda: Connection(**address), 5)
        pipeline.start()
        try:
            answers = [pipeline.execute("ECHO", "1")]
            with pytest.raises(UnicodeEncodeError):
                pipeline.execute("ECHO", "\ud800")
            answers.append(pipeline.execute("ECHO", "2"))
            assert await asyncio.wait_for(asyncio.gather(*answers), 5) == [b"1", b"2"]
        finally:
            await pipeline.close()

    asyncio.run(run())


def test_a_server_that_starts_before_redis(tmp_path: Path) -> None:
    private = PrivateRedis(tmp_path)
    with running_server(tmp_path, settings(private)) as url, Client(url) as client:
        assert client.enqueue("sms", "a", "1", 0)[0] == 503
        private.start()
        try:
            assert client.enqueue("sms", "a", "1", 0)[0] == 201
            assert client.dequeue("sms", wait=2)[0] == 200
        finally:
            private.kill()


def test_a_killed_server_loses_nothing(environ: dict[str, str], tmp_path: Path) -> None:
    environ["RLQ_SHARQ_JOB_EXPIRE_INTERVAL"] = "500"
    port = free_port()
    with running_server(tmp_path, environ, port=port) as url, Client(url) as client:
        for number in range(10):
            client.enqueue("sms", "a", str(number), 0)
        client.dequeue("sms", count=3)
    with running_server(tmp_path, environ) as url, Client(url) as client:
        found: set[str] = set()
        while len(found) < 10:
            status, job = client.dequeue("sms", wait=3)
            assert status == 200
            found.add(job["job_id"])


def test_a_flushed_store_goes_on(private_redis: PrivateRedis, tmp_path: Path) -> None:
    """The reference's own tests flush the database beside a running server."""
    with running_server(tmp_path, settings(private_redis)) as url, Client(url) as client:
        client.enqueue("sms", "a", "1", 60_000)
        client.dequeue("sms")
        with redis.Redis(port=private_redis.port) as direct:
            direct.flushall()
            direct.script_flush()
        assert client.dequeue("sms")[0] == 404
        client.enqueue("sms", "a", "1", 0)
        assert client.dequeue("sms")[0] == 200
        assert client.dequeue("sms", wait=3)[0] == 200, "it has expired, and is found"
