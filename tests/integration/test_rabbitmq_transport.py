"""The toolbox's RabbitMQ transport: publishers that live through errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest
from amqp.exceptions import MessageNacked, NotFound
from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from cadasta.workertoolbox import UnconfirmedError
from cadasta.workertoolbox.brokers.amqp.expiring import EXPIRING, Expiring
from cadasta.workertoolbox.brokers.transports import register
from tests.services import ConfirmProxy, Verdict

POLICY = {"max_retries": 1, "interval_start": 0}


FULL = {"x-max-length": 1, "x-overflow": "reject-publish"}


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    register()
    options = {"confirm_publish": True, "confirm_timeout": 2, **POLICY}
    with Connection(url, transport="toolbox-amqp", transport_options=options) as connection:
        yield connection


@pytest.fixture
def connection(rabbitmq_url: str) -> Iterator[Connection]:
    with connected(rabbitmq_url) as connection:
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
    connection.default_channel.queue_declare("full", arguments=FULL)
    producer = Producer(connection, auto_declare=False)
    producer.publish("first", routing_key="full")
    with pytest.raises(OperationalError, match="RabbitMQ refused a message: a queue"):
        producer.publish("second", routing_key="full", retry=True, retry_policy=POLICY)
    producer.publish("third", routing_key="work")
    assert (length(connection, "full"), length(connection)) == (1, 1)


class Slowly(int):
    """A number that takes its time where the task's message is made, after its copy is sent."""

    def __str__(self) -> str:
        time.sleep(0.3)
        return str(int(self))


def publish_expiring(
    connection: Connection, queue: str, monitor: str, milliseconds: int = 60_000
) -> None:
    expiring = Expiring(milliseconds, queue, monitor, {})
    producer = Producer(connection, auto_declare=False)
    producer.publish({}, routing_key=queue, **{EXPIRING: expiring})


@pytest.mark.parametrize("full", ["work", "monitor"])
@pytest.mark.parametrize("milliseconds", [60_000, Slowly(60_000)], ids=["at once", "slowly"])
def test_neither_copy_of_a_task_that_expires_is_refused_without_a_word(
    rabbitmq_url: str, full: str, milliseconds: int
) -> None:
    """Slowly: py-amqp reads what the broker says of the first before it writes the second."""
    with connected(rabbitmq_url) as connection:
        for queue in ("work", "monitor"):
            arguments = FULL if queue == full else {}
            connection.default_channel.queue_declare(queue, arguments=arguments)
        publish_expiring(connection, "work", "monitor", milliseconds)
        for _ in range(5):
            with pytest.raises(MessageNacked, match="RabbitMQ refused a message"):
                publish_expiring(connection, "work", "monitor", milliseconds)
        assert length(connection, full) == 1
        Producer(connection, auto_declare=False).publish("after", routing_key="nowhere")


Reordering = Callable[[Sequence[Verdict]], Sequence[Verdict]]


@pytest.fixture
def reordered(rabbitmq_url: str) -> Iterator[Callable[[Reordering], Connection]]:
    """Connect where the first two confirmations come in another order."""
    parts = urlsplit(rabbitmq_url)
    with ExitStack() as stack:

        def connect(reorder: Reordering) -> Connection:
            proxy = ConfirmProxy(str(parts.hostname), parts.port or 5672, reorder)
            stack.enter_context(proxy)
            place = parts.netloc.replace(
                f"{parts.hostname}:{parts.port}", f"127.0.0.1:{proxy.port}"
            )
            return stack.enter_context(connected(parts._replace(netloc=place).geturl()))

        yield connect


def swapped(verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
    return verdicts[::-1]


def test_a_copy_may_be_refused_after_its_task_is_confirmed(
    reordered: Callable[[Reordering], Connection],
) -> None:
    connection = reordered(swapped)
    connection.default_channel.queue_declare("work")
    connection.default_channel.queue_declare("monitor", arguments=FULL | {"x-max-length": 0})
    with pytest.raises(MessageNacked):
        publish_expiring(connection, "work", "monitor")


def test_confirmations_may_come_in_any_order(
    reordered: Callable[[Reordering], Connection],
) -> None:
    connection = reordered(swapped)
    for queue in ("work", "monitor"):
        connection.default_channel.queue_declare(queue)
    for _ in range(2):
        publish_expiring(connection, "work", "monitor")
    assert (length(connection), length(connection, "monitor")) == (2, 2)


@pytest.mark.parametrize("number", [0, 2])
def test_one_confirmation_may_be_of_several_messages(
    reordered: Callable[[Reordering], Connection], number: int
) -> None:
    connection = reordered(lambda _: [Verdict(number, is_refusal=False, is_multiple=True)])
    for queue in ("work", "monitor"):
        connection.default_channel.queue_declare(queue)
    publish_expiring(connection, "work", "monitor")


def test_a_copy_of_which_nothing_is_said_is_unconfirmed(
    reordered: Callable[[Reordering], Connection],
) -> None:
    connection = reordered(lambda verdicts: verdicts[1:])
    for queue in ("work", "monitor"):
        connection.default_channel.queue_declare(queue)
    with pytest.raises(UnconfirmedError):
        publish_expiring(connection, "work", "monitor")
