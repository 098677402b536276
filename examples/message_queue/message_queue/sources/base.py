"""What a source of messages is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, eq=False)
class Delivery:
    """One message as the broker handed it out."""

    topic: str
    message: Any
    #: The broker's consumer that it came to, where there is one for each waiting client.
    consumer_tag: str | None = None


Receive = Callable[[Delivery], None]


class UnreadableError(Exception):
    """What was taken from a queue is no message; it was refused."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"it cannot be read ({type(error).__name__})")


class Source(ABC):
    """Takes no more messages from a broker than there are clients that wait for one.

    So no message lies in this process while a client of another server waits for it. All methods
    but :meth:`wake` belong to one thread. They raise one of :attr:`errors` where the connection
    is gone; :meth:`open` makes a new one, and whatever was delivered before counts no more.

    Args:
        app: the Celery app.
        receive: takes each delivery.
    """

    #: What a lost connection raises.
    errors: tuple[type[BaseException], ...] = (OSError,)
    #: Those that say no to one topic, where :meth:`add` raises them.
    refusals: tuple[type[BaseException], ...] = ()

    def __init__(self, app: Any, receive: Receive) -> None:
        self.app = app
        self.receive = receive

    @abstractmethod
    def open(self) -> None:
        """Connect."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect; what is delivered and not settled goes back to its queue."""

    @abstractmethod
    def add(self, topic: str) -> None:
        """One client more waits for a message of ``topic``."""

    @abstractmethod
    def remove(self, topic: str) -> None:
        """One client less waits."""

    @abstractmethod
    def settle(self, delivery: Delivery, requeue: bool, again: bool) -> None:
        """Acknowledge a delivery, or put it back; ``again``: its client waits for the next."""

    @abstractmethod
    def discard(self, delivery: Delivery) -> None:
        """Refuse a delivery for good, to a dead-letter exchange if there is one; go on waiting."""

    @abstractmethod
    def flush(self) -> None:
        """Return when the broker has taken all that was settled."""

    @abstractmethod
    def poll(self, timeout: float) -> None:
        """Deliver what there is; wait for it, or for :meth:`wake`, up to ``timeout`` seconds."""

    @abstractmethod
    def wake(self) -> None:
        """End a :meth:`poll` early; from any thread."""

    @abstractmethod
    def notify(self, topic: str) -> None:
        """A message of ``topic`` was published by this process; from any thread."""


def connect(connection: Any) -> tuple[type[BaseException], ...]:
    """Connect once, without attempts in the background; the errors of a lost connection."""
    connection.transport_options = {**connection.transport_options, "max_retries": 0}
    found = (*connection.connection_errors, *connection.channel_errors, OSError)
    connection.connect()
    return found
