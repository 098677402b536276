"""One client's connection: the words that it says, and what it is answered."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from . import protocol
from .errors import FetchError, ProtocolError, PublishError, TopicError
from .feed import Lease
from .protocol import FrameReader, Handshake, HandshakeReader

if TYPE_CHECKING:
    from .server import Server

logger = logging.getLogger(__name__)

#: Frames of one client that wait for their turn; above, nothing is read from it.
MAX_INBOX = 32
#: Seconds that a client has to read the last answer before its connection is cut.
LINGER = 5.0
#: Bytes that are read and dropped meanwhile, at most.
MOST_DROPPED = 16 * 1024 * 1024
#: Seconds after which a silent client is probed, between probes, and how many go unanswered.
KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class ClientLeft(Exception):
    """The client said its last word."""


class Connection(asyncio.Protocol):
    """Reads frames as they come; a task answers them one after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._handshake = HandshakeReader()
        self._hello: Handshake | None = None
        self._frames = FrameReader(server.framing, server.settings.max_message_size)
        self._inbox: deque[bytes] = deque()
        self._error: ProtocolError | None = None
        self._has_ended = False  # the client sends no more
        self._is_closing = False
        self._is_paused = False
        self._news: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[Lease | None] | None = None
        self._held: Lease | None = None
        self._publishing: asyncio.Task[Any] | None = None

    @property
    def type(self) -> str | None:
        """What the client is; None before its handshake."""
        return self._hello.type if self._hello else None

    @property
    def topic(self) -> str:
        """The client's topic."""
        return self._hello.topic if self._hello else ""

    @property
    def holds(self) -> bool:
        """Whether the client has a message that it did not acknowledge."""
        return self._held is not None

    # -- what asyncio calls

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        _keep_alive(transport.get_extra_info("socket"))
        if self._server.admit(self):
            self._server.keep(self._loop.create_task(self._run()))
        else:
            self._refuse(f"the server has its {self._server.max_connections} connections")

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            self._dropped += len(data)
            if self._dropped > MOST_DROPPED:
                self._transport.abort()
            return
        try:
            if self._hello is None:
                found = self._handshake.feed(data)
                if found is None:
                    return
                self._hello, data = found
            self._inbox += self._frames.feed(data)
            self._error = self._frames.error
        except ProtocolError as error:
            self._error = error
        if self._error is not None or len(self._inbox) > MAX_INBOX:
            self._is_paused = True
            self._transport.pause_reading()
        if self._is_leaving:
            self._give_up()
        self._wake()

    @property
    def _is_leaving(self) -> bool:
        """Whether the client wants no message any more."""
        return self._has_ended or bool(self._inbox and self._inbox[0] == protocol.SHUTDOWN)

    def eof_received(self) -> bool:
        self._end()
        return not self._is_closing  # what it said before is answered

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._end()
        if self._publishing is not None:
            self._publishing.cancel()  # what was not yet sent to the broker need not be
        self._server.dismiss(self)

    def pause_writing(self) -> None:
        """The client does not read: hear no more words until it does."""
        self._is_stuck = True

    def resume_writing(self) -> None:
        self._is_stuck = False
        self._wake()

    _is_stuck = False
    _dropped = 0

    def _end(self) -> None:
        self._has_ended = True
        self._give_up()
        self._wake()

    def _give_up(self) -> None:
        if self._waiter is not None:
            self._server.broker.give_up(self.topic, self._waiter)

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # -- the conversation

    def abort(self) -> None:
        """Cut the connection; what the client holds goes back to its queue."""
        self._transport.abort()

    async def _run(self) -> None:
        try:
            if await self._greet() == protocol.PRODUCER:
                await self._serve_producer()
            else:
                await self._serve_consumer()
        except (ProtocolError, TopicError) as error:
            self._refuse(str(error))
        except FetchError as error:
            logger.error("A consumer of topic %s is sent away: %s", self.topic, error)
        except (ClientLeft, asyncio.CancelledError):
            pass
        finally:
            if self._held is not None:
                self._server.broker.put_back(self._held)
            self._close()

    async def _greet(self) -> str:
        timer = self._loop.call_later(self._server.settings.handshake_timeout, self._time_out)
        try:
            while self._hello is None:
                await self._something()
        finally:
            timer.cancel()
        self._server.check_topic(self._hello.topic)
        self._transport.write(protocol.ROGER)
        return self._hello.type

    def _time_out(self) -> None:
        if self._error is None:
            self._error = ProtocolError("no handshake came in time")
        self._wake()

    async def _something(self) -> None:
        """Wait until the client has said something more.

        Raises:
            ProtocolError: it was nothing good.
            ClientLeft: it says no more.
        """
        if self._error is not None:
            raise self._error
        if self._has_ended:
            raise ClientLeft
        self._news = self._loop.create_future()
        await self._news

    async def _next(self) -> bytes:
        """The next frame's body."""
        while self._is_stuck or not self._inbox:
            if self._is_stuck and not self._is_closing:
                self._news = self._loop.create_future()
                await self._news
            elif self._is_closing:
                raise ClientLeft
            else:
                await self._something()
        body = self._inbox.popleft()
        if self._is_paused and not self._inbox and self._error is None:
            self._is_paused = False
            self._transport.resume_reading()
        return body

    async def _serve_producer(self) -> None:
        while (body := await self._next()) != protocol.SHUTDOWN:
            self._publishing = asyncio.ensure_future(self._server.publish(self.topic, body))
            try:
                await self._publishing
            except PublishError as error:
                self._send(_unknown(str(error)))
            else:
                self._send(protocol.ACKNOWLEDGED)
            self._publishing = None
        self._send(protocol.CLOSE_CON)

    async def _serve_consumer(self) -> None:
        while (word := await self._next()) != protocol.SHUTDOWN:
            if word == protocol.FETCH:
                await self._fetch()
            elif word not in (protocol.ACK, protocol.NACK):
                self._send(protocol.UNKNOWN_WORD)
            elif self._held is None:
                self._send(_unknown("there is no message to acknowledge"))
            else:
                await self._settle(requeue=word == protocol.NACK)
                self._send(protocol.ACKNOWLEDGED)
        await self._settle()
        self._send(protocol.CLOSE_CON)

    async def _fetch(self) -> None:
        if self._held is not None:
            await self._server.note_consumed(self._held)
        held, self._held = self._held, None
        waiter = self._waiter = self._server.broker.fetch(self.topic, held)
        if self._is_leaving:
            self._give_up()
        try:
            self._held = await waiter
        finally:
            self._waiter = None
        if self._held is not None and self._is_leaving:
            # It came while the client's last word did: the client does not know of it.
            held, self._held = self._held, None
            self._server.broker.put_back(held)
        if self._held is not None:
            self._server.counts["fetched"] += 1
            self._send(self._held.body.encode())

    async def _settle(self, requeue: bool = False) -> None:
        if self._held is not None:
            if not requeue:
                await self._server.note_consumed(self._held)
            held, self._held = self._held, None
            await self._server.broker.settle(held, requeue=requeue)

    def _send(self, body: bytes) -> None:
        if not self._is_closing:
            self._transport.write(self._server.framing.frame(body))

    def _refuse(self, reason: str) -> None:
        self._server.counts["refused"] += 1
        self._send(_unknown(reason))
        self._close()

    def _close(self) -> None:
        """Close when the client has read the last answer.

        A socket that is closed while it has unread input is reset, and the client may never see
        that answer. So what still comes is read and dropped, for a while.
        """
        if self._is_closing:
            return
        self._is_closing = True
        self._loop.call_later(LINGER, self._transport.abort)
        if self._has_ended:
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:  # the client has cut the connection
            self._transport.abort()
            return
        if self._is_paused:
            self._transport.resume_reading()


def _unknown(reason: str) -> bytes:
    return protocol.UNKNOWN_WORD + b": " + reason.encode("utf-8", "replace")


def _keep_alive(sock: Any) -> None:
    """Let the system notice a client that is gone without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):  # not on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
