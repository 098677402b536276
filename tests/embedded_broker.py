"""What the tests of the embedded broker share: its exchange and queues, publishing, consuming."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kombu import Connection, Consumer, Exchange, Producer, Queue

from cadasta.workertoolbox.brokers import transports
from cadasta.workertoolbox.brokers.embedded import transport as embedded

TASKS = Exchange("task_exchange", type="topic")
WORK = Queue("data.sync", TASKS, routing_key="data.sync")
MONITOR = Queue("platform.fifo", TASKS, routing_key="#")
NEWS = Exchange("news", type="fanout")

ROOT = Path(__file__).parents[1]

Connect = Callable[..., Any]


@contextmanager
def connections(broker: Path) -> Iterator[Connect]:
    """Make connections to a broker's file with these transport options, closed at the end."""
    transports.register()
    made: list[Any] = []

    def make(**options: Any) -> Any:
        made.append(Connection(embedded.url_for(broker), transport_options=options))
        return made[-1]

    yield make
    for connection in made:
        connection.release()


def publish(connection: Any, *bodies: Any, **options: Any) -> None:
    """Publish to both queues, or as the options say."""
    options = {"exchange": TASKS, "routing_key": "data.sync", "declare": [WORK, MONITOR], **options}
    for body in bodies:
        Producer(connection).publish(body, **options)


def get(connection: Any, queue: Queue = WORK) -> Any:
    """Take one message, or return None."""
    return queue(connection.default_channel).get(accept=["json", "pickle", "text/plain"])


def bodies(connection: Any, queue: Queue = WORK) -> list[Any]:
    """Take and acknowledge all that waits in a queue."""
    found = []
    while message := get(connection, queue):
        found.append(message.payload)
        message.ack()
    return found


def size(connection: Any, queue: Queue = WORK) -> int:
    """Return how many messages wait in a queue; ChannelError if there is no such queue."""
    return int(queue(connection.default_channel).queue_declare(passive=True).message_count)


class Received:
    """A consumer that keeps what it is given."""

    def __init__(self, connection: Any, *queues: Queue, prefetch: int = 0, **options: Any) -> None:
        self.connection = connection
        self.messages: list[Any] = []
        self.consumer = Consumer(
            connection.channel(),
            list(queues) or [WORK],
            on_message=self.messages.append,
            prefetch_count=prefetch or None,
            **options,
        )
        self.consumer.consume()

    def drain(self, timeout: float = 0) -> list[Any]:
        """Return the payloads of all messages so far, once no more comes for so long."""
        while True:
            try:
                self.connection.drain_events(timeout=timeout)
            except TimeoutError:
                return [message.payload for message in self.messages]


def run(code: str, broker: Path) -> str:
    """Run some Python, with the broker's URL as its argument; return what it prints."""
    command = [sys.executable, "-c", code, embedded.url_for(broker)]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    return str(subprocess.run(command, check=True, timeout=60, **options).stdout)
