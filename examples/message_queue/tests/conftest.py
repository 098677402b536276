"""Fixtures: a server on each kind of broker, and a client that knows nothing but the protocol.

RabbitMQ, PostgreSQL and Redis are those of TEST_RABBITMQ_URL, TEST_POSTGRES_URL and
TEST_REDIS_URL, else those on the standard ports; SQS is moto's server. A missing one fails the
test with what to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from kombu import Connection as BrokerConnection
from message_queue.processes import ServerProcess, free_port
from sqlalchemy.engine import make_url

RABBITMQ_URL = "amqp://guest:guest@127.0.0.1:5672//"
POSTGRES_URL = "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres"
REDIS_URL = "redis://127.0.0.1:6379/0"
#: What would reach the server from whoever runs the tests.
FOREIGN = ("MQ_", "CELERY_", "SENTRY_", "AWS_")
BROKERS = ("embedded", "rabbitmq", "redis", "sqs")
HEAD_SECRET, TAIL_SECRET = "the head", "the tail"
HEAD = hashlib.sha256(HEAD_SECRET.encode()).hexdigest().encode()
TAIL = hashlib.sha256(TAIL_SECRET.encode()).hexdigest().encode()


@pytest.fixture(autouse=True)
def _own_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing of the environment of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MQ_HEAD_SECRET", HEAD_SECRET)
    monkeypatch.setenv("MQ_TAIL_SECRET", TAIL_SECRET)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))


def _fail(message: str) -> Any:
    raise pytest.fail.Exception(message, pytrace=False) from None


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Waits for a condition."""

    def wait(is_so: Callable[[], Any], what: str, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not is_so():
            assert time.monotonic() < deadline, f"waited {timeout} s in vain for {what}"
            time.sleep(0.05)

    return wait


@pytest.fixture
def topic() -> str:
    """A topic of this test."""
    return f"t{uuid.uuid4().hex}"


class Wire:
    """A client written from the page of the protocol, with sockets alone."""

    def __init__(self, port: int, by_byte: bool = False) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.by_byte = by_byte
        self.buffer = b""

    def send(self, data: bytes) -> None:
        """Send, or one byte at a time."""
        step = 1 if self.by_byte else len(data)
        for start in range(0, len(data), step):
            self.socket.sendall(data[start : start + step])

    def hello(self, kind: str, topic: str, greeting: str | None = None) -> None:
        """Shake hands."""
        self.send((greeting or f"{{'type': '{kind}', 'topic': '{topic}'}}").encode())
        assert self.read_exactly(5) == b"ROGER"

    def say(self, body: bytes) -> None:
        """Send a frame."""
        self.send(HEAD + body + TAIL)

    def ask(self, body: bytes) -> bytes:
        """Send a frame and wait for another."""
        self.say(body)
        return self.hear()

    def hear(self, timeout: float = 40) -> bytes:
        """The next frame's body."""
        self.socket.settimeout(timeout)
        while TAIL not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(f"closed after {self.buffer!r}")
            self.buffer += data
        frame, self.buffer = self.buffer.split(TAIL, 1)
        assert frame.startswith(HEAD)
        return frame.removeprefix(HEAD)

    def read_exactly(self, size: int) -> bytes:
        """So many bytes."""
        while len(self.buffer) < size:
            data = self.socket.recv(size - len(self.buffer))
            if not data:
                raise EOFError(f"closed after {self.buffer!r}")
            self.buffer += data
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def is_closed(self, timeout: float = 30) -> bool:
        """Whether the server closes the connection, with nothing more to say."""
        self.socket.settimeout(timeout)
        try:
            return self.socket.recv(1) == b"" and not self.buffer
        except ConnectionResetError:
            return True

    def close(self) -> None:
        """Close without a word."""
        self.socket.close()


@pytest.fixture
def wire() -> Iterator[Callable[..., Wire]]:
    """Connects to a port, by hand."""
    made: list[Wire] = []

    def connect(port: int, by_byte: bool = False) -> Wire:
        made.append(Wire(port, by_byte))
        return made[-1]

    yield connect
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def sqs_url() -> Iterator[str]:
    """``http://127.0.0.1:port`` of moto's server."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5).read()
                break
            except (urllib.error.URLError, OSError):
                if time.monotonic() > deadline:
                    _fail("moto's server does not start: pip install 'moto[server]'")
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def afterwards() -> Iterator[ExitStack]:
    """What to do when the test's servers have ended: before, they would make it all again."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def rabbitmq(topic: str, afterwards: ExitStack) -> dict[str, str]:
    """Variables of a server on RabbitMQ, with an exchange and queues of this test."""
    url = os.environ.get("TEST_RABBITMQ_URL", RABBITMQ_URL)
    exchange, monitor = f"x-{topic}", f"monitor-{topic}"
    with BrokerConnection(url, connect_timeout=5) as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0.1)
        except Exception as error:  # Any: it says why there is none
            _fail(f"RabbitMQ at TEST_RABBITMQ_URL does not answer ({error}): start it")

    def clean() -> None:
        with BrokerConnection(url, connect_timeout=5) as connection:
            channel = connection.channel()
            for queue in (monitor, f"mq.{topic}"):
                channel.queue_delete(queue)
            channel.exchange_delete(exchange)

    afterwards.callback(clean)
    return {
        "CELERY_BROKER_URL": url,
        "CELERY_TASK_DEFAULT_EXCHANGE": exchange,
        "CELERY_PLATFORM_QUEUE_NAME": monitor,
    }


@pytest.fixture
def redis(topic: str, afterwards: ExitStack) -> dict[str, str]:
    """Variables of a server on Redis, with a key prefix of this test."""
    from redis import Redis

    url, prefix = os.environ.get("TEST_REDIS_URL", REDIS_URL), f"{topic}:"
    options = {"global_keyprefix": prefix, "visibility_timeout": 3}
    with Redis.from_url(url, socket_connect_timeout=5) as client:
        try:
            client.ping()
        except Exception as error:  # Any: it says why there is none
            _fail(f"Redis at TEST_REDIS_URL does not answer ({error}): start it")

    def clean() -> None:
        with Redis.from_url(url) as client:
            for key in client.scan_iter(match=f"{prefix}*", count=1000):
                client.delete(key)

    afterwards.callback(clean)
    return {
        "CELERY_BROKER_URL": url,
        "CELERY_BROKER_TRANSPORT_OPTIONS": json.dumps(options),
    }


@pytest.fixture
def sqs(sqs_url: str, topic: str) -> dict[str, str]:
    """Variables of a server on SQS, with a queue prefix of this test."""
    options = {
        "is_secure": False,
        "queue_name_prefix": f"{topic[:12]}-",
        "visibility_timeout": 3,
    }
    return {
        "CELERY_BROKER_URL": f"sqs://test:test@{sqs_url.removeprefix('http://')}",
        "CELERY_BROKER_TRANSPORT_OPTIONS": json.dumps(options),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-west-2",
        "AWS_ENDPOINT_URL_SQS": sqs_url,
    }


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> dict[str, str]:
    """The variables of each broker in turn."""
    if request.param == "embedded":
        return {}
    found: dict[str, str] = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def start_server(tmp_path: Path, afterwards: ExitStack) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers with these variables."""
    made: list[ServerProcess] = []

    def start(environ: dict[str, str] | None = None, port: int | None = None) -> ServerProcess:
        server = ServerProcess(tmp_path, environ or {}, port, name=f"server{len(made)}")
        made.append(server)
        server.start()
        return server

    yield start
    for server in made:
        server.stop()
        log = server.log.read_text()
        sys.stdout.write(f"--- {server.name}\n{log}")  # shown where the test fails
        assert "Traceback" not in log


@pytest.fixture
def server(start_server: Callable[..., ServerProcess], broker: dict[str, str]) -> ServerProcess:
    """A server on each broker in turn."""
    return start_server(broker)


@pytest.fixture
def embedded(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server on the embedded broker."""
    return start_server()


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty database."""
    admin = make_url(os.environ.get("TEST_POSTGRES_URL", POSTGRES_URL))
    name = f"message_queue_test_{uuid.uuid4().hex}"

    def run(statement: str) -> None:
        plain = admin.set(drivername="postgresql")
        try:
            connection = psycopg2.connect(
                plain.render_as_string(hide_password=False), connect_timeout=5
            )
        except psycopg2.OperationalError as error:
            _fail(f"PostgreSQL at TEST_POSTGRES_URL does not answer ({error}): start it")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    run(f"CREATE DATABASE {name}")
    yield admin.set(database=name).render_as_string(hide_password=False)
    run(f"DROP DATABASE {name} WITH (FORCE)")
