"""RabbitMQ, as the toolbox sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kombu import Queue
from kombu.exceptions import ChannelError

from ...plain.defaults import Default
from ..broker import Broker, Reads
from . import queue_types
from .monitor_reads import buffer_reads


class AmqpBroker(Broker):
    """RabbitMQ: bindings are the broker's, each queue has a type, and consumers are counted."""

    title = "RabbitMQ"
    # No wait of the toolbox's is without end, and a lost connection is opened anew.
    transports = {
        "amqp": "toolbox-amqp",
        "pyamqp": "toolbox-amqp",
        "amqps": "toolbox-amqps",
        "librabbitmq": None,
    }
    transport_classes = {
        "toolbox-amqp": "amqp.transport:Transport",
        "toolbox-amqps": "amqp.transport:SSLTransport",
    }
    settings = {
        "broker_heartbeat": Default(
            20.0, "A RabbitMQ that is frozen is left within a minute; Celery's 120 take four."
        ),
    }
    options = {
        "confirm_publish": Default(True, "Without the broker's confirmation a publish can vanish."),
        "confirm_timeout": Default(
            30.0, "delay() raises where RabbitMQ is out of memory or disk, and confirms nothing."
        ),
        "answer_timeout": Default(
            15.0, "A RabbitMQ that does not answer, as to a declaration, counts as gone."
        ),
        "write_timeout": Default(15.0, "So does one that takes nothing in."),
    }
    shares_bindings = True
    locks_control_queues = True
    #: RabbitMQ closes the channel of a consumer that holds a message for longer.
    #: https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
    consumer_timeout = 1800

    def queue_type(self, queue_type: str) -> str:
        """As it is set."""
        return queue_type

    def require_queue_type(self, queue_type: str, settings: Mapping[str, Any]) -> None:
        """Refuse a type of the default queue that is not that of all."""
        queue_types.require_one_type(queue_type, settings)

    def require_possible_queues(self, queues: Iterable[Queue]) -> None:
        """Refuse quorum queues that RabbitMQ refuses."""
        queue_types.require_possible_queues(queues)

    def expires_tasks(self, transport: str | None) -> bool:
        """On the toolbox's transport, which writes two messages then."""
        return transport in self.transport_classes

    def limits_deliveries(self, queues: Iterable[Queue]) -> bool:
        """Where all are quorum queues."""
        return all(queue_types.is_quorum(queue) for queue in queues)

    def length(self, connection: Any, queue: Queue) -> int:
        """What a passive declaration tells."""
        with connection.channel() as channel:
            return int(queue(channel).queue_declare(passive=True).message_count)

    def consumers(self, connection: Any, queue: Queue) -> int:
        """What a passive declaration tells."""
        with connection.channel() as channel:
            return int(queue(channel).queue_declare(passive=True).consumer_count)

    def difference(self, connection: Any, queue: Queue) -> ChannelError | None:
        """What RabbitMQ says to a declaration of the queue as it should be."""
        with connection.channel() as channel:
            try:
                queue(channel).queue_declare()
            except ChannelError as exc:
                return exc
        return None

    def bindings(
        self, connection: Any, queue: Queue, management_url: str | None
    ) -> set[str] | None:
        """What the management interface tells: AMQP has no way to read bindings."""
        from .management import bindings  # an HTTP client: the check's alone

        return bindings(connection, queue, management_url)

    def tolerate_messages(self, channel: Any) -> None:
        """RabbitMQ takes messages of one form alone."""

    def buffer_reads(self, connection: Any) -> Reads | None:
        """Read many frames with one system call."""
        return buffer_reads(connection)

    def acknowledge(self, channel: Any, tags: list[Any]) -> None:
        """All at once: AMQP numbers the deliveries of a channel."""
        channel.basic_ack(tags[-1], multiple=True)
