"""The client library and the commands, against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from message_queue import (
    AsyncConsumer,
    AsyncProducer,
    ConnectionClosedError,
    Consumer,
    Producer,
    PublishError,
)
from message_queue.errors import TopicError
from message_queue.processes import ServerProcess, free_port


def run(*arguments: str, folder: Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command of the package."""
    return subprocess.run(
        [sys.executable, "-m", "message_queue", *arguments],
        cwd=folder,
        env=dict(os.environ),
        input=data,
        capture_output=True,
        timeout=120,
    )


def test_a_block_that_fails_gives_its_message_back(embedded: ServerProcess, topic: str) -> None:
    with Producer(topic, port=embedded.port) as producer:
        producer.publish("one")
    with pytest.raises(ZeroDivisionError):
        with Consumer(topic, port=embedded.port) as consumer:
            assert consumer.fetch(30) == "one"
            raise ZeroDivisionError
    with Consumer(topic, port=embedded.port) as consumer:
        assert consumer.fetch(30) == "one"
        consumer.put_back()
        assert consumer.fetch(30) == "one"
        consumer.acknowledge()
        with pytest.raises(PublishError, match="no message"):
            consumer.acknowledge()
        assert consumer.fetch(0.2) is None


def test_a_fetch_that_timed_out_loses_nothing(embedded: ServerProcess, topic: str) -> None:
    impatient = Consumer(topic, port=embedded.port)
    impatient.connect()
    assert impatient.fetch(0.1) is None
    with Producer(topic, port=embedded.port) as producer:
        producer.publish("late")
    impatient.close_socket()  # the message may be on its way: it is not acknowledged
    with Consumer(topic, port=embedded.port) as consumer:
        assert consumer.fetch(30) == "late"


def test_a_client_connects_again(embedded: ServerProcess, topic: str) -> None:
    producer = Producer(topic, port=embedded.port)
    with pytest.raises(ConnectionClosedError, match="connect"):
        producer.publish("too early")
    for message in ("one", "two"):
        producer.connect()
        producer.connect()
        producer.publish(message)
        producer.close_socket()
        producer.close_socket()
    with pytest.raises(TopicError):
        Producer("no topic")
    with pytest.raises(OSError):
        Producer(topic, port=free_port()).connect()


def test_asyncio(embedded: ServerProcess, topic: str) -> None:
    async def produce(part: int) -> None:
        async with AsyncProducer(topic, port=embedded.port) as producer:
            for number in range(20):
                await producer.publish(f"{part} {number}")

    found: list[str] = []
    sent = sorted(f"{a} {b}" for a in range(3) for b in range(20))

    async def consume() -> None:
        async with AsyncConsumer(topic, port=embedded.port) as consumer:
            while len(found) < len(sent):
                if (message := await consumer.fetch(0.3)) is not None:
                    found.append(message)

    async def check() -> None:
        consumers = [asyncio.create_task(consume()) for _ in range(3)]
        await asyncio.gather(*(produce(part) for part in range(3)))
        await asyncio.wait_for(asyncio.gather(*consumers), 60)
        assert sorted(found) == sent

        # A fetch that is cancelled loses no message.
        async with AsyncConsumer(topic, port=embedded.port) as consumer:
            waiting = asyncio.create_task(consumer.fetch())
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await produce(0)
            assert await consumer.fetch(30) == "0 0"
            await consumer.put_back()
            assert await consumer.fetch(30) == "0 0"
            await consumer.acknowledge()

    asyncio.run(check())


def test_the_commands(tmp_path: Path, embedded: ServerProcess, topic: str) -> None:
    port = ("--port", str(embedded.port))
    lines = "first line\n  second, with Ünïcode ✓  \n\nlast"
    done = run("producer", topic, *port, folder=tmp_path, data=lines.encode())
    assert (done.returncode, done.stderr) == (0, b"4 acknowledged\n")
    done = run("producer", topic, *port, "--whole", folder=tmp_path, data=lines.encode())
    assert done.returncode == 0
    done = run("consumer", topic, *port, "--count", "5", folder=tmp_path)
    assert done.stdout.decode() == f"{lines}\n{lines}\n"
    done = run("consumer", topic, *port, "--timeout", "0.2", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"")

    status = run("status", *port, "--json", folder=tmp_path)
    found = json.loads(status.stdout)
    assert found["running"] and found["pid"] == embedded.pid
    assert (found["published"], found["acknowledged"]) == (5, 5)
    assert b"running on port" in run("status", *port, folder=tmp_path).stdout
    assert run("stop", *port, folder=tmp_path).returncode == 0
    assert run("status", *port, folder=tmp_path).returncode == 3
    assert run("stop", *port, folder=tmp_path).returncode == 1
    assert run("producer", topic, *port, folder=tmp_path, data=b"x").returncode == 1


@pytest.mark.parametrize(
    ("environ", "arguments", "reason"),
    [
        ({"MQ_TOPICS": "a b"}, (), "topic 'a b'"),
        ({"MQ_MAX_MESSAGE_SIZE": "big"}, (), "MQ_MAX_MESSAGE_SIZE is 'big'"),
        ({"MQ_MAX_MESSAGE_SIZE": "0"}, (), "MQ_MAX_MESSAGE_SIZE is 0"),
        ({"MQ_RECORD": "perhaps"}, (), "MQ_RECORD is 'perhaps'"),
        ({"MQ_HEAD_SECRET": ""}, (), "MQ_HEAD_SECRET is empty"),
        ({"MQ_HEAD_SECRET": "HEAD"}, ("--host", "0.0.0.0"), "set MQ_HEAD_SECRET"),
        ({"CELERY_QUEUE_TYPE": "other"}, (), "QUEUE_TYPE is 'other'"),
        ({}, ("--host", "203.0.113.1"), "cannot listen on 203.0.113.1"),
        ({"XDG_RUNTIME_DIR": "/tmp/" + 100 * "x"}, (), "set XDG_RUNTIME_DIR to a shorter path"),
    ],
)
def test_a_start_that_cannot_work(
    environ: dict[str, str],
    arguments: tuple[str, ...],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    done = run("start", "--port", str(free_port()), *arguments, folder=tmp_path)
    assert done.returncode == 1
    assert reason in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_two_servers_on_one_port(embedded: ServerProcess, tmp_path: Path, topic: str) -> None:
    done = run("start", "--port", str(embedded.port), folder=tmp_path)
    assert done.returncode == 1 and b"cannot listen" in done.stderr
    assert run("status", "--port", str(embedded.port), folder=tmp_path).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_gives_back_what_clients_hold(
    number: int, start_server: Callable[..., ServerProcess], topic: str
) -> None:
    server = start_server()
    with Producer(topic, port=server.port) as producer:
        producer.publish("one")
    consumer = Consumer(topic, port=server.port)
    consumer.connect()
    assert consumer.fetch(30) == "one"
    assert server.stop(number) == 0
    with pytest.raises((ConnectionError, OSError)):
        consumer.fetch(5)
    consumer.abort()
    server.start()
    with Consumer(topic, port=server.port) as again:
        assert again.fetch(30) == "one"


def test_the_demonstration(tmp_path: Path) -> None:
    done = run("demo", "--messages", "200", folder=tmp_path)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert b"200 messages have arrived" in done.stdout
    assert list(tmp_path.iterdir()) == []
