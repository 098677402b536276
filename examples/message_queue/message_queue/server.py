"""The server: accepts clients, and gives them the broker."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from .application import driver_type, make_app
from .broker import Broker
from .connection import Connection
from .errors import PublishError, SettingsError, TopicError
from .feed import Lease
from .protocol import CONSUMER, PRODUCER
from .settings import Settings
from .topics import check_topic

if TYPE_CHECKING:
    from .record import Recorder

logger = logging.getLogger(__name__)

#: Files that the process needs beside its clients' sockets.
RESERVED_FILES = 64
#: Seconds that a stop waits for the rows of ``MQ_RECORD``.
RECORD_TIMEOUT = 10.0
#: New connections that the system keeps until they are accepted.
BACKLOG = 1024


class Server:
    """Speaks the protocol with any number of clients; the broker does the queueing.

    Args:
        settings: what it needs to know.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.framing = settings.framing()
        self.app = make_app(settings)
        self.counts: Counter[str] = Counter()
        self.max_connections = _raise_file_limit() - RESERVED_FILES
        if settings.max_connections:
            self.max_connections = min(self.max_connections, settings.max_connections)
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_on_sqs = driver_type(self.app) == "sqs"
        self._started = time.time()
        self._server: asyncio.Server | None = None
        self.broker: Broker
        self._recorder: Recorder | None = None
        if settings.record:
            from .record import Recorder, database_url  # SQLAlchemy: only who records pays for it

            self._recorder = Recorder(database_url(self.app))

    async def bind(self, host: str, port: int) -> int:
        """Take the address; the port, which the system chooses where ``port`` is 0.

        Raises:
            SettingsError: the secrets are the defaults, and others than this machine could come.
            OSError: the address cannot be used.
        """
        if self.settings.has_default_secrets and not _is_local(host):
            raise SettingsError(
                f"to listen on {host}, set MQ_HEAD_SECRET and MQ_TAIL_SECRET: everybody knows the "
                "defaults."
            )
        self.broker = Broker(self.app, self.settings.publish_timeout, self.framing)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), host, port, backlog=BACKLOG, start_serving=False
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Connect to the broker, in the background, and let clients in."""
        if self._server is None:
            raise RuntimeError("call bind() first")
        self.broker.start()
        if self._recorder is not None:
            self._recorder.start()
        await self._server.start_serving()
        for sock in self._server.sockets:
            logger.info("Listening on %s:%d", *sock.getsockname()[:2])

    async def stop(self) -> None:
        """Let no more clients in, finish what is on its way, put back what clients hold."""
        if self._server is not None:
            self._server.close()
        await self.broker.stop_publishing()
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.stop, RECORD_TIMEOUT)
        await asyncio.sleep(0.05)  # the last answers
        for connection in list(self._connections):
            connection.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        await self.broker.stop()
        logger.info("Stopped")

    # -- for connections

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for one more."""
        if len(self._connections) >= self.max_connections:
            return False
        self._connections.add(connection)
        return True

    def dismiss(self, connection: Connection) -> None:
        """It is gone."""
        self._connections.discard(connection)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Hold a task: asyncio itself does not."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def check_topic(self, topic: str) -> None:
        """Refuse a topic that is not served.

        Raises:
            TopicError: says why.
        """
        check_topic(topic, self._is_on_sqs)
        if self.settings.topics and topic not in self.settings.topics:
            raise TopicError(f"topic {topic!r} is not one of this server's")

    async def publish(self, topic: str, body: bytes) -> None:
        """Publish a producer's message; returns when the broker has it.

        Raises:
            PublishError: it does not, or it is no UTF-8.
        """
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise PublishError(f"the message is no UTF-8 at byte {error.start}") from None
        message_id = await self.broker.publish(topic, text)
        self.counts["published"] += 1
        if self._recorder is not None:
            await self._record(message_id, topic, text, is_consumed=False)

    async def note_consumed(self, lease: Lease) -> None:
        """A consumer acknowledges a message; before the broker hears of it."""
        self.counts["acknowledged"] += 1
        if self._recorder is not None:
            await self._record(lease.id, lease.topic, lease.body, is_consumed=True)

    async def _record(self, message_id: str, topic: str, body: str, is_consumed: bool) -> None:
        assert self._recorder is not None  # noqa: S101
        loop, written = asyncio.get_running_loop(), asyncio.Event()

        def done() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(written.set)

        self._recorder.add(message_id, topic, body, is_consumed, done)
        await written.wait()

    # -- for people

    def status(self) -> dict[str, Any]:
        """How the server is, in JSON's types."""
        types = Counter(connection.type for connection in self._connections)
        return {
            "pid": os.getpid(),
            "uptime_seconds": round(time.time() - self._started, 1),
            "broker": self.app.connection_for_write().as_uri(),
            "broker_connected": self.broker.is_connected,
            "connections": len(self._connections),
            "producers": types[PRODUCER],
            "consumers": types[CONSUMER],
            "held": sum(connection.holds for connection in self._connections),
            **{name: self.counts[name] for name in COUNTS},
        }


#: What a server counts since its start.
COUNTS = ("published", "fetched", "acknowledged", "refused")


def _is_local(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def _raise_file_limit() -> int:
    """Allow this process as many open files as the system lets it; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1_000_000 if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted
