"""The toolbox's RabbitMQ transport: publishers that live through errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from amqp.exceptions import NotFound
from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from cadasta.workertoolbox.brokers.transports import register

POLICY = {"max_retries": 1, "interval_start": 0}


@pytest.fixture
def connection(rabbitmq_url: str) -> Iterator[Connection]:
    register()
    options = {"confirm_publish": True, "confirm_timeout": 2, **POLICY}
    with Connection(
        rabbitmq_url, transport="toolbox-amqp", transport_options=options
    ) as connection:
        connection.default_channel.queue_declare("work")
        yield connection


def length(connection: Connection, queue: str = "work") -> int:
    with connection.channel() as channel:
        return int(channel.queue_declare(queue, passive=True).message_count)


def test_a_publisher_outlives_a_channel_that_the_broker_closed(connection: Connection) -> None:
    """The broker counts from one again on the channel that py-amqp opens in its place."""
    producer = Producer(connection, auto_declare=False)
    for _ in range(2):
        producer.publish("before", routing_key="work")
    with pytest.raises(NotFound):
        producer.publish("lost", routing_key="work", exchange="there.is.none")
    for _ in range(2):
        producer.publish("after", routing_key="work")
    assert length(connection) == 4


def test_a_publish_on_a_lost_connection_opens_a_new_one(connection: Connection) -> None:
    producer = Producer(connection, auto_declare=False)
    producer.publish("before", routing_key="work")
    connection.connection.collect()  # as after a confirmation that did not come
    producer.publish("after", routing_key="work", retry=True, retry_policy=POLICY)
    assert length(connection) == 2


def test_a_refused_message_is_an_error_that_says_so(connection: Connection) -> None:
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    connection.default_channel.queue_declare("full", arguments=arguments)
    producer = Producer(connection, auto_declare=False)
    producer.publish("first", routing_key="full")
    with pytest.raises(OperationalError, match="RabbitMQ refused a message: a queue"):
        producer.publish("second", routing_key="full", retry=True, retry_policy=POLICY)
    producer.publish("third", routing_key="work")
    assert (length(connection, "full"), length(connection)) == (1, 1)
