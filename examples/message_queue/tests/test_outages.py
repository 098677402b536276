"""Whatever breaks while messages flow: no message lost, none twice after its acknowledgement."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from message_queue import Consumer, MessageQueueError, Producer
from message_queue.processes import ServerProcess

#: How many messages flow; TEST_FULL=1 sends more.
MESSAGES = 3000 if os.environ.get("TEST_FULL") else 300
#: Seconds without a message after which there is none.
QUIET = 2.0


class Traffic:
    """Two producers and two consumers that connect again whenever their connection breaks.

    A text is sent once: a message that was not acknowledged is sent again as another text. So one
    that comes again after its acknowledgement is the server's fault.
    """

    def __init__(self, port: int, topic: str, messages: int, pause: float = 0.0) -> None:
        self.port, self.topic, self.messages, self.pause = port, topic, messages, pause
        self.received: set[int] = set()
        self.acknowledged: set[str] = set()
        self.errors: list[str] = []
        self.redelivered = 0
        self.seen: set[str] = set()
        self._lock = threading.Lock()
        self._producing = 2
        self._threads = [
            *(threading.Thread(target=self._produce, args=(part,)) for part in range(2)),
            *(threading.Thread(target=self._consume) for _ in range(2)),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"{len(self.received)} of {self.messages} have come"

    def check(self) -> None:
        assert self.errors == []
        assert self.received == set(range(self.messages))

    def _connected(self, client: Any) -> Any:
        while True:
            with suppress(OSError, MessageQueueError):
                client.connect()
                return client
            time.sleep(0.05)

    def _produce(self, part: int) -> None:
        producer = Producer(self.topic, port=self.port)
        for number in range(part, self.messages, 2):
            attempt = 0
            while True:
                self._connected(producer)
                try:
                    producer.publish(f"{number} {attempt}")
                    break
                except (OSError, MessageQueueError):
                    producer.abort()
                    attempt += 1
            time.sleep(self.pause)
        producer.abort()
        with self._lock:
            self._producing -= 1

    def _consume(self) -> None:
        consumer, held = Consumer(self.topic, port=self.port), ""
        last = time.monotonic()
        while self._producing or time.monotonic() - last < QUIET or not self._is_complete():
            self._connected(consumer)
            try:
                message = consumer.fetch(0.2)
            except (OSError, MessageQueueError):
                consumer.abort()
                held = ""  # nobody knows whether the last acknowledgement arrived
                continue
            if message is None:
                continue
            last = time.monotonic()
            with self._lock:
                if held:
                    self.acknowledged.add(held)
                if message in self.acknowledged:
                    self.errors.append(f"{message} came again after its acknowledgement")
                self.redelivered += message in self.seen
                self.seen.add(message)
                self.received.add(int(message.split()[0]))
            held = message
        with suppress(OSError, MessageQueueError):
            consumer.close_socket()
        consumer.abort()

    def _is_complete(self) -> bool:
        return len(self.received) == self.messages


@pytest.mark.parametrize("broker", ["embedded", "rabbitmq", "redis"], indirect=True)
def test_a_server_that_is_killed_again_and_again(
    start_server: Callable[..., ServerProcess], broker: dict[str, str], topic: str
) -> None:
    server = start_server(broker)
    traffic = Traffic(server.port, topic, MESSAGES, pause=0.005)
    traffic.start()
    for _ in range(2):
        time.sleep(0.7)
        server.kill()
        server.start()
    traffic.join(120)
    traffic.check()


class Relay:
    """Passes bytes on to a broker, until it is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self.is_open = True
        self.passes = threading.Event()
        self.passes.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            self._sockets += [near, far]
            if not self.is_open:
                self.cut()
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                self.passes.wait()  # else it is silent: it takes, and answers nothing
                sink.sendall(data)
        for sock in (source, sink):
            sock.close()

    def cut(self) -> None:
        """Break all connections."""
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def close(self) -> None:
        self.passes.set()
        self._listener.close()
        self.cut()


@pytest.fixture
def relay(rabbitmq: dict[str, str]) -> Iterator[Relay]:
    """A relay to RabbitMQ."""
    parts = urlsplit(rabbitmq["CELERY_BROKER_URL"])
    made = Relay(parts.hostname or "127.0.0.1", parts.port or 5672)
    login, _, _ = parts.netloc.rpartition("@")
    rabbitmq["CELERY_BROKER_URL"] = f"amqp://{login}@127.0.0.1:{made.port}{parts.path}"
    yield made
    made.close()


def test_a_broker_that_goes_away_and_comes_back(
    start_server: Callable[..., ServerProcess],
    relay: Relay,
    rabbitmq: dict[str, str],
    topic: str,
) -> None:
    server = start_server(rabbitmq)
    traffic = Traffic(server.port, topic, MESSAGES, pause=0.005)
    traffic.start()
    for _ in range(4):
        time.sleep(0.5)
        relay.cut()
    time.sleep(0.3)
    relay.is_open = False
    relay.cut()
    time.sleep(1)
    relay.is_open = True
    traffic.join(120)
    traffic.check()
    # One server remembers what it has shown: not even a broker that forgot shows it again.
    assert traffic.redelivered == 0


def test_a_broker_that_is_silent(
    start_server: Callable[..., ServerProcess],
    relay: Relay,
    rabbitmq: dict[str, str],
    topic: str,
) -> None:
    server = start_server({**rabbitmq, "MQ_PUBLISH_TIMEOUT": "2"})
    with Producer(topic, port=server.port) as producer:
        producer.publish("before")
        relay.passes.clear()
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(MessageQueueError, match="in the queue"):
                producer.publish("unknown")
            assert time.monotonic() - started < 15
        relay.passes.set()
        while True:
            with suppress(MessageQueueError):
                producer.publish("after")
                break
    found = set()
    with Consumer(topic, port=server.port) as consumer:
        while "after" not in found:
            found.add(consumer.fetch(30))
    assert "before" in found
    relay.passes.clear()
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 30


def test_a_client_keeps_its_message_while_the_broker_is_away(
    start_server: Callable[..., ServerProcess],
    relay: Relay,
    rabbitmq: dict[str, str],
    topic: str,
) -> None:
    server = start_server(rabbitmq)
    with Producer(topic, port=server.port) as producer:
        for message in ("one", "two"):
            producer.publish(message)
    with Consumer(topic, port=server.port) as consumer, Consumer(topic, port=server.port) as other:
        assert consumer.fetch(30) == "one"
        relay.cut()
        assert other.fetch(30) == "two"  # not the one that another client has
        assert other.fetch(1) is None
        assert consumer.fetch(1) is None
    with Consumer(topic, port=server.port) as again:
        assert again.fetch(1) is None


def test_what_is_acknowledged_while_the_broker_is_away(
    start_server: Callable[..., ServerProcess],
    relay: Relay,
    rabbitmq: dict[str, str],
    topic: str,
) -> None:
    server = start_server(rabbitmq)
    with Producer(topic, port=server.port) as producer:
        producer.publish("one")
        with Consumer(topic, port=server.port) as consumer:
            assert consumer.fetch(30) == "one"
            relay.is_open = False
            relay.cut()
            assert consumer.fetch(1) is None  # acknowledges, and the broker does not hear it
            relay.is_open = True
            producer.publish("two")
            assert consumer.fetch(20) == "two"


def test_no_broker_at_all(start_server: Callable[..., ServerProcess], topic: str) -> None:
    server = start_server(
        {"CELERY_BROKER_URL": "amqp://guest:secret@127.0.0.1:9//", "MQ_PUBLISH_TIMEOUT": "0.5"}
    )
    with Producer(topic, port=server.port) as producer:
        with pytest.raises(MessageQueueError, match="broker is away"):
            producer.publish("never")
    assert server.stop() == 0
    assert "secret" not in server.log.read_text()
