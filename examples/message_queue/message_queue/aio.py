"""Clients for asyncio: :class:`AsyncProducer` and :class:`AsyncConsumer`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

from . import protocol
from .endpoint import Endpoint
from .errors import ConnectionClosedError, MessageQueueError

T = TypeVar("T")

_CHUNK = 65_536


class AsyncClient(Endpoint):
    """As :class:`~.client.Client`, with coroutines; an async context manager.

    Args: those of :class:`~.endpoint.Endpoint`.
    """

    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> None:
        """As :meth:`.client.Client.connect`."""
        if self._streams is not None:
            return
        self._dialogue.restart()
        self._streams = await _timed(asyncio.open_connection(self.host, self.port), self.timeout)
        try:
            self._streams[1].write(self._dialogue.handshake.encode())
            await _timed(self._greeted(), self.timeout)
        except BaseException:
            self.abort()
            raise

    async def _greeted(self) -> None:
        while not self._dialogue.is_greeted:
            await self._read()

    async def close_socket(self) -> None:
        """As :meth:`.client.Client.close_socket`."""
        if self._streams is None:
            return
        try:
            if not self._dialogue.is_fetching:
                await self._send(self._dialogue.framing.frame(protocol.SHUTDOWN))
                while await self._receive(self.timeout) != protocol.CLOSE_CON:
                    pass
        finally:
            self.abort()

    def abort(self) -> None:
        """As :meth:`.client.Client.abort`."""
        streams, self._streams = self._streams, None
        if streams is not None:
            with suppress(OSError):
                streams[1].transport.abort()

    async def _send(self, data: bytes) -> None:
        if self._streams is None:
            raise ConnectionClosedError("not connected: call connect() first")
        try:
            self._streams[1].write(data)
            await _timed(self._streams[1].drain(), self.timeout)
        except OSError:
            self.abort()
            raise

    async def _receive(self, timeout: float | None) -> bytes:
        # Taken when the wait is over: a call that is cancelled takes nothing along.
        await _timed(self._heard(), timeout)
        body = self._dialogue.take()
        assert body is not None  # noqa: S101
        return body

    async def _heard(self) -> None:
        while not self._dialogue.has_answer:
            await self._read()

    async def _read(self) -> None:
        if self._streams is None:
            raise ConnectionClosedError("not connected: call connect() first")
        try:
            data = await self._streams[0].read(_CHUNK)
        except OSError:
            self.abort()
            raise
        if not data:
            self.abort()
            raise self._dialogue.closed()
        try:
            self._dialogue.feed(data)
        except MessageQueueError:
            self.abort()
            raise

    async def __aenter__(self) -> AsyncClient:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.close_socket()
        else:
            self.abort()


class AsyncProducer(AsyncClient):
    """As :class:`~.client.Producer`."""

    TYPE = protocol.PRODUCER

    async def publish(self, message: str) -> None:
        """As :meth:`.client.Producer.publish`; a cancelled call closes the connection."""
        await self._send(self._dialogue.encode_message(message))
        try:
            answer = await self._receive(self.timeout)
        except BaseException:
            self.abort()  # a later answer would be taken for that to the next message
            raise
        self._dialogue.check_acknowledged(answer)

    async def __aenter__(self) -> AsyncProducer:
        await self.connect()
        return self


class AsyncConsumer(AsyncClient):
    """As :class:`~.client.Consumer`."""

    TYPE = protocol.CONSUMER

    async def fetch(self, timeout: float | None = None) -> str | None:
        """As :meth:`.client.Consumer.fetch`; after a cancelled call, the next gets the message."""
        if not self._dialogue.is_fetching:
            await self._send(self._dialogue.framing.frame(protocol.FETCH))
            self._dialogue.is_fetching = True
        try:
            body = await self._receive(timeout)
        except TimeoutError:
            return None
        self._dialogue.is_fetching = False
        return body.decode()

    async def acknowledge(self) -> None:
        """As :meth:`.client.Consumer.acknowledge`."""
        await self._say(protocol.ACK)

    async def put_back(self) -> None:
        """As :meth:`.client.Consumer.put_back`."""
        await self._say(protocol.NACK)

    async def _say(self, word: bytes) -> None:
        if self._dialogue.is_fetching:
            raise ConnectionClosedError("a fetch is under way: there is no message to settle")
        await self._send(self._dialogue.framing.frame(word))
        self._dialogue.check_acknowledged(await self._receive(self.timeout))

    async def __aenter__(self) -> AsyncConsumer:
        await self.connect()
        return self


async def _timed(awaitable: Awaitable[T], timeout: float | None) -> T:
    try:
        return await asyncio.wait_for(awaitable, timeout)
    except asyncio.TimeoutError:  # another class before Python 3.11
        raise TimeoutError("no answer came in time") from None
