"""The transport on Redis: who gets a message, and how long it waits for a server."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection, Exchange, Queue
from kombu.exceptions import ChannelError

from cadasta.workertoolbox import Config
from cadasta.workertoolbox.brokers import transports
from cadasta.workertoolbox.brokers.redis.connection import RefusedError
from tests.services import PrivateRedis

CALLS = 200


def make_app(redis_url: str, prefix: str, **settings: Any) -> Celery:
    app = Celery("redis", set_as_current=False)
    options = {"global_keyprefix": prefix, **settings.pop("options", {})}
    app.config_from_object(
        Config(
            queues=["export"],
            broker_url=redis_url,
            broker_transport_options=options,
            result_backend="disabled://",
            **settings,
        )
    )
    return app


@pytest.fixture
def app(redis_url: str, redis_prefix: str) -> Iterator[Celery]:
    app = make_app(redis_url, redis_prefix)
    yield app
    app.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as found:
        yield found


@pytest.mark.parametrize("transport", ["toolbox-redis", "redis"])
def test_no_answer_is_lost(redis_url: str, redis_prefix: str, transport: str) -> None:
    """The asker binds a queue for each call, a moment before it is answered."""
    transports.register()
    options = {"global_keyprefix": redis_prefix}
    app = Celery("asker", broker=redis_url, set_as_current=False)
    app.conf.update(broker_transport=transport, broker_transport_options=options)
    mailbox = app.control.mailbox
    node = mailbox.Node("node@test", state=app, handlers={"echo": lambda _, number: number})
    listening, stop = threading.Event(), threading.Event()

    def answer() -> None:
        with Connection(redis_url, transport=transport, transport_options=options) as connection:
            channel = connection.default_channel
            with node.listen(channel=channel):
                node.channel = channel
                listening.set()
                while not stop.is_set():
                    try:
                        connection.drain_events(timeout=0.2)
                    except TimeoutError:
                        pass

    answering = threading.Thread(target=answer)
    answering.start()
    try:
        assert listening.wait(10)
        found = [
            app.control.broadcast("echo", {"number": number}, reply=True, limit=1, timeout=10)
            for number in range(CALLS)
        ]
    finally:
        stop.set()
        answering.join()
        app.close()
    assert found == [[{"node@test": number}] for number in range(CALLS)]


def test_a_queue_counts_from_the_moment_of_its_binding(
    app: Celery, client: redis.Redis, redis_prefix: str
) -> None:
    """Whoever binds it, to our exchange as well: a work queue, a second monitor queue."""
    exchange = Exchange(app.conf.task_default_exchange, type="topic")
    app.send_task("export.pdf")
    with app.connection_for_write() as elsewhere:
        for number in range(20):
            for key in ("export", "#"):
                name = f"late-{number}-{len(key)}"
                queue = Queue(name, exchange, routing_key=key)(elsewhere.default_channel)
                queue.declare()
                app.send_task("export.pdf")
                assert client.llen(f"{redis_prefix}{name}") == 1
                queue.delete()
                app.send_task("export.pdf")
                assert not client.exists(f"{redis_prefix}{name}")
    assert client.llen(f"{redis_prefix}export") == 81
    assert client.llen(f"{redis_prefix}{app.conf.PLATFORM_QUEUE_NAME}") == 81


def test_a_binding_that_is_undone_counts_no_more(
    app: Celery, client: redis.Redis, redis_prefix: str
) -> None:
    exchange = Exchange(app.conf.task_default_exchange, type="topic")
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        queue = Queue("other", exchange, routing_key="export")(channel)
        queue.declare()
        app.send_task("export.pdf")
        queue.unbind_from(exchange, "export")
        app.send_task("export.pdf")
    assert client.llen(f"{redis_prefix}other") == 1


def test_own_bindings_outlive_those_of_redis(
    app: Celery, client: redis.Redis, redis_prefix: str
) -> None:
    """It may evict them, or be flushed: nothing goes nowhere."""
    app.send_task("export.pdf")
    client.delete(f"{redis_prefix}_kombu.binding.{app.conf.task_default_exchange}")
    app.send_task("export.pdf")
    assert client.llen(f"{redis_prefix}export") == 2
    assert client.llen(f"{redis_prefix}{app.conf.PLATFORM_QUEUE_NAME}") == 2


def test_a_queue_that_expires_does_so_anew_with_each_message(
    app: Celery, client: redis.Redis, redis_prefix: str
) -> None:
    exchange = Exchange(app.conf.task_default_exchange, type="topic")
    with app.connection_for_write() as connection:
        queue = Queue("brief", exchange, routing_key="export", expires=600)
        producer = app.amqp.Producer(connection)
        for priority in (0, 9):
            producer.publish(
                {}, exchange=exchange, routing_key="export", declare=[queue], priority=priority
            )
    assert 590_000 < client.pttl(f"{redis_prefix}brief") <= 600_000
    assert 590_000 < client.pttl(f"{redis_prefix}brief\x06\x169") <= 600_000


def test_a_server_that_was_restarted_is_given_the_script_again(private_redis: PrivateRedis) -> None:
    app = make_app(private_redis.url, "p:")
    with redis.Redis.from_url(private_redis.url) as client:
        app.send_task("export.pdf")
        client.script_flush()
        app.send_task("export.pdf")
        assert client.llen("p:export") == 2
    app.close()


def test_the_script_leaves_no_trace_of_the_default_exchange(
    app: Celery, client: redis.Redis, redis_prefix: str
) -> None:
    with app.connection_for_write() as connection:
        app.amqp.Producer(connection).publish({}, exchange="", routing_key="direct")
    assert [key.decode() for key in client.scan_iter(f"{redis_prefix}*")] == [
        f"{redis_prefix}direct"
    ]


def test_a_task_to_an_exchange_that_is_none_is_refused(app: Celery) -> None:
    """As on the other brokers: with kombu's own transport it vanishes without a word."""
    with pytest.raises(ChannelError, match="no queue is bound to the exchange 'nowhere'"):
        app.send_task("export.add", exchange="nowhere", routing_key="nowhere")


STRANDED = 20


@contextmanager
def without_memory(server: PrivateRedis) -> Iterator[None]:
    """It gives messages away, and refuses to keep who has them."""
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


@pytest.fixture
def stranding(private_redis: PrivateRedis) -> Iterator[Celery]:
    """An app that was given messages which it could not note; the server has memory again."""
    app = make_app(private_redis.url, "p:")
    for number in range(STRANDED):
        app.send_task("export.pdf", task_id=f"{number}")
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        with without_memory(private_redis):
            for _ in range(STRANDED):
                with pytest.raises(RefusedError):
                    channel.basic_get("export")
    assert queued(private_redis) == []
    yield app
    app.close()


def queued(server: PrivateRedis) -> list[int]:
    """The numbers of the tasks that wait in their queue."""
    with redis.Redis.from_url(server.url) as client:
        found: Any = client.lrange("p:export", 0, -1)
    return sorted(int(json.loads(message)["headers"]["id"]) for message in found)


def open_channel(app: Celery) -> None:
    """Put back what is stranded."""
    with app.connection_for_write() as connection:
        connection.default_channel.client.ping()


def test_threads_put_each_stranded_message_back_once(
    stranding: Celery, private_redis: PrivateRedis
) -> None:
    ready = threading.Barrier(8)

    def run() -> None:
        ready.wait()
        open_channel(stranding)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert queued(private_redis) == list(range(STRANDED))


def test_a_child_leaves_stranded_messages_to_its_parent(
    stranding: Celery, private_redis: PrivateRedis
) -> None:
    child = os.fork()
    if child == 0:
        try:
            open_channel(stranding)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert queued(private_redis) == []
    open_channel(stranding)
    assert queued(private_redis) == list(range(STRANDED))


def test_a_channel_opens_where_stranded_messages_cannot_be_put_back_yet(
    stranding: Celery, private_redis: PrivateRedis, caplog: pytest.LogCaptureFixture
) -> None:
    with without_memory(private_redis):
        for _ in range(2):
            open_channel(stranding)
    assert caplog.text.count(f"{STRANDED} messages wait for another connection") == 2
    assert queued(private_redis) == []
    open_channel(stranding)
    open_channel(stranding)
    assert queued(private_redis) == list(range(STRANDED))
