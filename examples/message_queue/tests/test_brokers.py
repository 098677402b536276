"""The protocol on each broker: order, acknowledgement, and a server that is killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
import pytest
from kombu import Connection as BrokerConnection
from message_queue import Consumer, Producer, PublishError
from message_queue.processes import ServerProcess

#: Seconds until what a killed server held is back: a test's visibility timeout, and a look.
BACK = 25


def test_first_in_first_out(server: ServerProcess, topic: str) -> None:
    messages = [f"message {number}" for number in range(30)]
    with Producer(topic, port=server.port) as producer:
        for message in messages:
            producer.publish(message)
    with Consumer(topic, port=server.port) as consumer:
        assert [consumer.fetch(30) for _ in messages] == messages
        assert consumer.fetch(0.3) is None


def test_a_fetch_waits_for_a_message(server: ServerProcess, topic: str) -> None:
    with Consumer(topic, port=server.port) as consumer, Producer(topic, port=server.port) as one:
        assert consumer.fetch(0.3) is None
        one.publish("late")
        assert consumer.fetch(30) == "late"


def test_what_is_not_acknowledged_comes_back(server: ServerProcess, topic: str) -> None:
    with Producer(topic, port=server.port) as producer:
        for message in ("one", "two", "three"):
            producer.publish(message)
    breaking = Consumer(topic, port=server.port)
    breaking.connect()
    assert breaking.fetch(30) == "one"
    assert breaking.fetch(30) == "two"
    breaking.abort()
    with Consumer(topic, port=server.port) as consumer:
        assert sorted(str(consumer.fetch(30)) for _ in range(2)) == ["three", "two"]
        assert consumer.fetch(0.3) is None


def test_ack_and_nack(server: ServerProcess, topic: str, wire: Callable[..., Any]) -> None:
    with Producer(topic, port=server.port) as producer:
        producer.publish("one")
    client = wire(server.port)
    client.hello("CONSUMER", topic)
    assert client.ask(b"FETCH") == b"one"
    assert client.ask(b"NACK") == b"ACKNOWLEDGED"
    assert client.ask(b"FETCH") == b"one"
    assert client.ask(b"ACK") == b"ACKNOWLEDGED"
    assert client.ask(b"ACK").startswith(b"UNKNOWN_WORD")
    assert client.ask(b"SHUTDOWN") == b"CLOSE_CON"
    assert client.is_closed()


def test_a_killed_server_loses_nothing(
    start_server: Callable[..., ServerProcess], broker: dict[str, str], topic: str
) -> None:
    first = start_server(broker)
    messages = [f"message {number}" for number in range(20)]
    with Producer(topic, port=first.port) as producer:
        for message in messages:
            producer.publish(message)
    consumer = Consumer(topic, port=first.port)
    consumer.connect()
    acknowledged = [consumer.fetch(30) for _ in range(5)]
    held = consumer.fetch(30)
    assert [*acknowledged, held] == messages[:6]
    first.kill()
    consumer.abort()
    second = start_server(broker, port=first.port)
    with Consumer(topic, port=second.port) as again:
        found = [again.fetch(BACK) for _ in messages[5:]]
        assert sorted(map(str, found)) == sorted(messages[5:])
        assert again.fetch(0.5) is None


def test_a_queue_that_is_another(
    start_server: Callable[..., ServerProcess],
    rabbitmq: dict[str, str],
    topic: str,
    wire: Callable[..., Any],
) -> None:
    server = start_server(rabbitmq)
    with BrokerConnection(rabbitmq["CELERY_BROKER_URL"]) as connection:
        connection.channel().queue_declare(f"mq.{topic}", durable=False, auto_delete=False)
        with Producer(topic, port=server.port) as producer:
            with pytest.raises(PublishError, match="the broker refuses it"):
                producer.publish("never")
        consumer = Consumer(topic, port=server.port)
        consumer.connect()
        with pytest.raises(ConnectionError):
            consumer.fetch(30)
        consumer.abort()
        connection.channel().queue_delete(f"mq.{topic}")
        with Producer(topic, port=server.port) as producer:
            producer.publish("one")
        with Consumer(topic, port=server.port) as consumer:
            assert consumer.fetch(30) == "one"


def test_quorum_queues(
    start_server: Callable[..., ServerProcess], rabbitmq: dict[str, str], topic: str
) -> None:
    server = start_server({**rabbitmq, "CELERY_QUEUE_TYPE": "quorum"})
    with Producer(topic, port=server.port) as producer:
        for number in range(10):
            producer.publish(str(number))
    with Consumer(topic, port=server.port) as consumer:
        assert [consumer.fetch(30) for _ in range(10)] == list(map(str, range(10)))


def test_what_a_stranger_has_put_there(
    start_server: Callable[..., ServerProcess],
    rabbitmq: dict[str, str],
    topic: str,
    wait_until: Callable[..., None],
) -> None:
    server = start_server(rabbitmq)
    with Producer(topic, port=server.port) as producer:
        producer.publish("one")
        with BrokerConnection(rabbitmq["CELERY_BROKER_URL"]) as connection:
            connection.Producer().publish({"not": "ours"}, routing_key=f"mq.{topic}")
        producer.publish("two")
    with Consumer(topic, port=server.port) as consumer:
        assert [consumer.fetch(30), consumer.fetch(30)] == ["one", "two"]
        assert consumer.fetch(0.3) is None
    assert "is refused: it is no message of a topic" in server.log.read_text()


def redis_put(broker: dict[str, str], topic: str, text: str) -> None:
    from redis import Redis

    with Redis.from_url(broker["CELERY_BROKER_URL"]) as client:
        client.lpush(f"{topic}:mq.{topic}", text)


def sqs_put(broker: dict[str, str], topic: str, text: str) -> None:
    url, region = broker["AWS_ENDPOINT_URL_SQS"], broker["AWS_REGION"]
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("sqs", region_name=region, endpoint_url=url, **keys)
    name = f"{topic[:12]}-mq-{topic}"
    client.send_message(QueueUrl=client.get_queue_url(QueueName=name)["QueueUrl"], MessageBody=text)


@pytest.mark.parametrize(("name", "put"), [("redis", redis_put), ("sqs", sqs_put)])
def test_what_is_no_message_at_all(
    start_server: Callable[..., ServerProcess],
    request: pytest.FixtureRequest,
    topic: str,
    name: str,
    put: Callable[[dict[str, str], str, str], None],
) -> None:
    broker = request.getfixturevalue(name)
    server = start_server(broker)
    with Producer(topic, port=server.port) as producer:
        producer.publish("one")
        for text in ("hello", "deadbeef", '{"properties": 5}'):  # the second looks like base64
            put(broker, topic, text)
        producer.publish("two")
    with Consumer(topic, port=server.port) as consumer:
        # SQS shows it again after some seconds, where no redrive policy takes it away.
        assert {consumer.fetch(30), consumer.fetch(30)} == {"one", "two"}
    assert "is refused: it cannot be read" in server.log.read_text()


def test_two_servers_share_the_work(
    start_server: Callable[..., ServerProcess], broker: dict[str, str], topic: str
) -> None:
    one, two = start_server(broker), start_server(broker)
    with Producer(topic, port=one.port) as producer:
        with Consumer(topic, port=two.port) as other, Consumer(topic, port=one.port) as near:
            producer.publish("first")
            assert other.fetch(30) == "first"
            # A server takes no message that none of its clients waits for.
            producer.publish("second")
            assert near.fetch(30) == "second"
            producer.publish("third")
            assert other.fetch(30) == "third"
