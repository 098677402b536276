"""What the toolbox asks of a broker; the answers here are those of one that it does not know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from kombu import Queue
from kombu.exceptions import ChannelError

from ..plain.defaults import Default

#: Celery's own patience with a host that it connects to, in seconds.
CONNECTION_TIMEOUT = 4.0


class Reads(Protocol):
    """What a connection reads with that takes more from the broker than it was asked for."""

    @property
    def has_more(self) -> bool:
        """Whether there is something that the broker need not be asked for."""


@dataclass(frozen=True, slots=True)
class QueueAttributes:
    """What a queue has of its own on a broker whose queues are made elsewhere as well."""

    #: Whether the transport options name it, where they have to name each queue.
    is_listed: bool
    #: Whether it hands messages out in their order.
    is_fifo: bool = False
    #: Seconds that it hides a message, where the settings do not count; None: they do.
    visibility_timeout: int | None = None
    #: How many bytes of JSON the arguments of a task may take, about.
    arguments_bytes: int = 0


class Broker:
    """One kind of broker: all in which it differs from others, so that nobody else asks for it.

    This class is the kind of all of kombu's transports that the toolbox does not know: their queues
    are there once they are used, and their bindings are in each process's memory. An object
    answers and remembers nothing: what it is asked about is an argument.

    A broker's module is loaded with the settings of each process, hence without its driver.

    Args:
        name: the scheme of its URLs, or the name of kombu's transport.
    """

    #: As people say it.
    title: ClassVar[str] = "the broker"
    #: By scheme of its URLs, the toolbox's transport; None: kombu's own will do.
    transports: ClassVar[Mapping[str, str | None]] = {}
    #: By name of a transport, where its class is, seen from this folder.
    transport_classes: ClassVar[Mapping[str, str]] = {}
    #: Celery's settings whose defaults differ from those on other brokers.
    settings: ClassVar[Mapping[str, Default]] = {}
    #: Transport options of which the same is true.
    options: ClassVar[Mapping[str, Default]] = {}
    #: Whether it hands the messages of one group out one after the other.
    has_message_groups: ClassVar[bool] = False
    #: Whether workers can be asked, which takes a fan-out.
    has_remote_control: ClassVar[bool] = True
    #: Whether all processes see a binding that one of them has made.
    shares_bindings: ClassVar[bool] = False
    #: Whether a worker's queue of remote control stays locked while its old connection counts.
    locks_control_queues: ClassVar[bool] = False
    #: Seconds for which somebody may hold a message, by its own defaults; None: for ever.
    consumer_timeout: ClassVar[int | None] = None
    #: What to do where it cannot be reached.
    remedy: ClassVar[str] = "start the broker, and check broker_url, its password and the network"

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name}>"

    # -- settings

    def unnamed_url(
        self, own: Mapping[str, Any], settings: Mapping[str, Any], environ: Mapping[str, str]
    ) -> str | None:
        """Its URL where no broker is named, and what is given is meant for this one alone.

        Args:
            own: the toolbox's settings that the user gave.
            settings: the Celery settings that the user gave.
            environ: the process's environment.
        """
        return None

    def transport_options(
        self, own: Mapping[str, Any], settings: Mapping[str, Any], environ: Mapping[str, str]
    ) -> dict[str, Any]:
        """The transport options of this broker alone.

        Args:
            own: the toolbox's settings.
            settings: the Celery settings that the user gave.
            environ: the process's environment.

        Raises:
            ConfigError: the broker cannot do what the settings ask for.
        """
        return {name: default.value for name, default in self.options.items()}

    def connect_timeout(self, settings: Mapping[str, Any]) -> float:
        """Seconds that one host may take to be connected to, by the settings that the user gave."""
        return float(settings.get("broker_connection_timeout") or CONNECTION_TIMEOUT)

    def visibility_timeout(self, options: Mapping[str, Any]) -> float | None:
        """Seconds after which a message is handed out again that nobody has acknowledged.

        Args:
            options: the app's transport options.

        Returns:
            None where the broker knows no such time.
        """
        return None

    # -- queues, as they are set

    def queue_type(self, queue_type: str) -> str:
        """The type of a queue where ``QUEUE_TYPE`` is ``queue_type``."""
        return "classic"

    def require_queue_type(self, queue_type: str, settings: Mapping[str, Any]) -> None:
        """Refuse settings of Celery that contradict ``QUEUE_TYPE``.

        Raises:
            ConfigError: names the setting and the remedy.
        """

    def require_queue_names(self, names: Iterable[str], options: Mapping[str, Any]) -> None:
        """Refuse names of queues that this broker does not take.

        Args:
            names: of all queues, the monitor queue among them.
            options: the transport options.

        Raises:
            ConfigError: names the queue and the remedy.
        """

    def require_possible_queues(self, queues: Iterable[Queue]) -> None:
        """Refuse queues that the broker would refuse.

        Raises:
            ConfigError: names the queue, the option and the remedy.
        """

    def expires_tasks(self, transport: str | None) -> bool:
        """Whether ``transport`` lets a task expire in its queue, and not the monitor's copy."""
        return False

    def limits_deliveries(self, queues: Iterable[Queue]) -> bool | None:
        """Whether no message comes back for ever; None where a queue has no such choice."""
        return None

    # -- queues, as they are on the broker

    def length(self, connection: Any, queue: Queue) -> int:
        """How many messages wait in a queue; on Amazon SQS about how many.

        Raises:
            kombu.exceptions.ChannelError: there is no such queue.
        """
        with connection.channel() as channel:
            return int(channel._size(queue.name))

    def consumers(self, connection: Any, queue: Queue) -> int | None:
        """How many consumers a queue has; None where the broker does not count them."""
        return None

    def absence(self, connection: Any, queue: Queue) -> ChannelError | None:
        """What the broker says where there is no such queue; None where there is."""
        with connection.channel() as channel:
            try:
                queue(channel).queue_declare(passive=True)
            except ChannelError as exc:
                return exc
        return None

    def difference(self, connection: Any, queue: Queue) -> ChannelError | None:
        """What the broker says where a queue is of another kind than set; None where it is not."""
        return None

    def bindings(
        self, connection: Any, queue: Queue, management_url: str | None
    ) -> set[str] | None:
        """The keys by which a queue is bound to its exchange; None where nobody tells.

        Args:
            connection: to the broker.
            queue: which of them.
            management_url: the setting ``MANAGEMENT_URL``.
        """
        # In each process's memory: they go with each publish, and cannot be wrong.
        return {queue.routing_key}

    def attributes(self, connection: Any, queue: Queue) -> QueueAttributes | None:
        """What a queue has of its own; None where the settings say all of it."""
        return None

    def eviction_policy(self, connection: Any) -> str | None:
        """By which rule the broker drops what it was given; None where it never does.

        Raises:
            Exception: of the driver: the broker does not say.
        """
        return None

    # -- the monitor

    def monitor_transport(self, connection: Any) -> Any:
        """The transport on which an acknowledgement touches the monitor's messages alone.

        Args:
            connection: to this broker, not connected yet.

        Returns:
            A name or a class, as kombu takes both.
        """
        return connection.transport_cls

    def monitor_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The monitor's transport options that differ from the app's ``options``."""
        return {}

    def tolerate_messages(self, channel: Any) -> None:
        """Let a channel hand out whatever a foreign client may have left in a queue."""
        from .foreign_messages import tolerate  # kombu's virtual transports: the monitor's alone

        tolerate(channel)

    def buffer_reads(self, connection: Any) -> Reads | None:
        """Let a connection read ahead, where this saves time; None where it does not."""
        return None

    def acknowledge(self, channel: Any, tags: list[Any]) -> None:
        """Acknowledge messages of the monitor, at least one, in as few round trips as it allows.

        Args:
            channel: of the monitor's connection.
            tags: of all that the channel has handed out since the last call, in their order.
        """
        for tag in tags:
            channel.basic_ack(tag)
