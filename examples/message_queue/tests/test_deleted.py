"""What somebody deletes in the broker under a running server: made anew, and nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from kombu import Connection
from message_queue import Consumer, Producer
from message_queue.processes import ServerProcess


@pytest.fixture
def channel(rabbitmq: dict[str, str]) -> Iterator[Any]:
    """A channel of RabbitMQ, for what an operator may do."""
    with Connection(rabbitmq["CELERY_BROKER_URL"], connect_timeout=5) as connection:
        yield connection.channel()


def delete_queue(channel: Any, topic: str) -> None:
    channel.queue_delete(f"mq.{topic}")


def remove_binding(channel: Any, topic: str) -> None:
    channel.queue_unbind(f"mq.{topic}", f"x-{topic}", f"mq.{topic}")


def delete_exchange(channel: Any, topic: str) -> None:
    channel.exchange_delete(f"x-{topic}")


def make_exchange_anew(channel: Any, topic: str) -> None:
    channel.exchange_delete(f"x-{topic}")
    channel.exchange_declare(f"x-{topic}", "topic", durable=True, auto_delete=False)


DELETIONS = [delete_queue, remove_binding, delete_exchange, make_exchange_anew]


@pytest.mark.parametrize("delete", DELETIONS)
def test_what_is_acknowledged_after_a_deletion_is_there(
    start_server: Callable[..., ServerProcess],
    rabbitmq: dict[str, str],
    topic: str,
    channel: Any,
    delete: Callable[[Any, str], None],
) -> None:
    server = start_server(rabbitmq)
    with (
        Producer(topic, port=server.port) as producer,
        Producer(topic, port=server.port) as other,
        Consumer(topic, port=server.port) as consumer,
    ):
        for number in range(5):
            producer.publish(f"before {number}")
            assert consumer.fetch(30) == f"before {number}"
            delete(channel, topic)
            producer.publish(f"after {number}")
            other.publish(f"other {number}")
            assert consumer.fetch(30) == f"after {number}"
            assert consumer.fetch(30) == f"other {number}"


def test_a_queue_that_is_deleted_while_clients_wait(
    start_server: Callable[..., ServerProcess],
    rabbitmq: dict[str, str],
    topic: str,
    channel: Any,
) -> None:
    server = start_server(rabbitmq)
    with (
        Producer(topic, port=server.port) as producer,
        Consumer(topic, port=server.port) as holding,
        Consumer(topic, port=server.port) as waiting,
    ):
        for number in range(3):
            producer.publish(f"held {number}")
            assert holding.fetch(30) == f"held {number}"
            assert waiting.fetch(0.3) is None  # it goes on waiting
            delete_queue(channel, topic)
            producer.publish(f"second {number}")
            assert waiting.fetch(30) == f"second {number}"
            producer.publish(f"third {number}")
            assert holding.fetch(30) == f"third {number}"


def test_the_deletion_of_one_topic_disturbs_no_other(
    start_server: Callable[..., ServerProcess],
    rabbitmq: dict[str, str],
    topic: str,
    channel: Any,
    afterwards: Any,
) -> None:
    other = f"{topic}o"
    server, second = start_server(rabbitmq), start_server(rabbitmq)

    def clean() -> None:
        with Connection(rabbitmq["CELERY_BROKER_URL"]) as connection:
            connection.channel().queue_delete(f"mq.{other}")

    afterwards.callback(clean)
    with (
        Producer(other, port=server.port) as producer,
        Consumer(other, port=server.port) as consumer,
        Consumer(other, port=second.port) as stranger,
        Consumer(topic, port=server.port) as waiting,
    ):
        producer.publish("held")
        assert consumer.fetch(30) == "held"
        assert waiting.fetch(0.2) is None
        delete_queue(channel, topic)
        with Producer(topic, port=second.port) as again:
            again.publish("new")
        assert waiting.fetch(30) == "new"
        assert stranger.fetch(2) is None, "what another client holds"


def test_word_of_a_message_that_went_with_its_queue_settles_no_other(
    start_server: Callable[..., ServerProcess],
    rabbitmq: dict[str, str],
    topic: str,
    channel: Any,
) -> None:
    server = start_server(rabbitmq)
    with Producer(topic, port=server.port) as producer:
        with Consumer(topic, port=server.port) as one:
            producer.publish("old")
            assert one.fetch(30) == "old"
            with Consumer(topic, port=server.port) as two:
                assert two.fetch(0.3) is None
                delete_queue(channel, topic)
                producer.publish("new")
                assert two.fetch(30) == "new"
                assert one.fetch(0.3) is None  # acknowledges the old one
                two.abort()  # and the new one is back
            assert one.fetch(30) == "new"


def test_the_keys_of_redis_are_deleted(
    start_server: Callable[..., ServerProcess], redis: dict[str, str], topic: str
) -> None:
    from redis import Redis

    server = start_server(redis)
    with (
        Redis.from_url(redis["CELERY_BROKER_URL"]) as client,
        Producer(topic, port=server.port) as producer,
        Consumer(topic, port=server.port) as consumer,
    ):
        for number in range(3):
            producer.publish(f"before {number}")
            assert consumer.fetch(30) == f"before {number}"
            for key in client.scan_iter(match=f"{topic}:*", count=1000):
                client.delete(key)
            producer.publish(f"after {number}")
            assert consumer.fetch(30) == f"after {number}"


def test_a_queue_of_sqs_is_deleted(
    start_server: Callable[..., ServerProcess],
    sqs: dict[str, str],
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in sqs.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    server = start_server(sqs)
    client = boto3.client(
        "sqs", region_name="us-west-2", endpoint_url=os.environ["AWS_ENDPOINT_URL_SQS"]
    )
    with (
        Producer(topic, port=server.port) as producer,
        Consumer(topic, port=server.port) as consumer,
    ):
        producer.publish("before")
        assert consumer.fetch(30) == "before"
        (url,) = [
            url
            for url in client.list_queues()["QueueUrls"]
            if url.endswith(f"-mq-{topic}") or url.endswith(f"mq.{topic}")
        ]
        client.delete_queue(QueueUrl=url)
        producer.publish("after")
        assert consumer.fetch(30) == "after"
