"""One connection to Redis that sends the commands of an event-loop tick together.

redis-py's own client takes a connection for each command, and waits for its answer. Here all
requests that are served at the same time share one connection, and as many writes and reads of the
socket as there are ticks.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from .errors import StoreUnavailable

logger = logging.getLogger(__name__)

#: Why a connection was dropped that was closed on purpose.
CLOSED = "it was closed"


class Pipeline:
    """Commands to one Redis server, in the order in which they are given.

    Args:
        connect: makes a connection of redis-py that is not connected yet.
        timeout: seconds without an answer after which the connection is given up.
    """

    def __init__(self, connect: Callable[[], AbstractConnection], timeout: float) -> None:
        self._make = connect
        self._timeout = timeout
        self._queued: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._sent: deque[asyncio.Future[Any]] = deque()
        self._wanted = asyncio.Event()
        self._connection: AbstractConnection | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._answers = 0

    def start(self) -> None:
        """Begin to send; needs a running event loop."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._send()), loop.create_task(self._watch())]

    async def close(self) -> None:
        """Stop, and fail what has not been answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._drop(CLOSED)

    def execute(self, *command: Any) -> asyncio.Future[Any]:
        """Send a command; the future holds its answer, undecoded.

        The future fails with :class:`StoreUnavailable` where the server is away (the command may
        have been run all the same), with ``ResponseError`` where it refuses the command.

        Raises:
            UnicodeEncodeError: the command has half of a surrogate pair.
        """
        # Here, since a command that cannot be packed must fail alone.
        packed = hiredis.pack_command(command)
        future = asyncio.get_running_loop().create_future()
        self._queued.append((packed, future))
        self._wanted.set()
        return future

    async def _send(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                connection = self._connection or await self._connect()
                batch, self._queued = self._queued, []
                self._sent.extend(future for _, future in batch)
                packed = b"".join(command for command, _ in batch)
                await connection.send_packed_command(packed, check_health=False)
            except Exception as error:
                # Any: uvloop raises RuntimeError on a closed socket, and this loop must go on.
                await self._drop(str(error) or type(error).__name__)

    async def _connect(self) -> AbstractConnection:
        connection = self._make()
        try:
            # redis-py would wait for the answers to its greeting for ever.
            await asyncio.wait_for(
                connection.connect(),  # type: ignore[no-untyped-call, unused-ignore]
                self._timeout,
            )
        except asyncio.TimeoutError:
            await connection.disconnect(nowait=True)
            raise StoreUnavailable(f"no answer for {self._timeout:g} seconds") from None
        self._connection = connection
        self._tasks[2:] = [asyncio.get_running_loop().create_task(self._receive(connection))]
        return connection

    async def _receive(self, connection: AbstractConnection) -> None:
        answer: Any
        try:
            while True:
                try:
                    answer = await connection.read_response(
                        disable_decoding=True, disconnect_on_error=False
                    )
                except ResponseError as error:
                    future = self._sent.popleft()
                    if not future.done():
                        future.set_exception(error)
                else:
                    future = self._sent.popleft()
                    if not future.done():
                        future.set_result(answer)
                self._answers += 1
        except Exception as error:  # as above
            await self._drop(str(error) or type(error).__name__)

    async def _watch(self) -> None:
        # A server that stopped, or a network that swallows packets, closes no connection.
        while True:
            before, oldest = self._answers, self._sent[0] if self._sent else None
            await asyncio.sleep(self._timeout)
            if oldest and self._answers == before and self._sent and self._sent[0] is oldest:
                await self._drop(f"no answer for {self._timeout:g} seconds")

    async def _drop(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        failed = [*self._sent, *(future for _, future in self._queued)]
        self._sent.clear()
        self._queued.clear()
        for future in failed:
            if not future.done():
                future.set_exception(StoreUnavailable(f"Redis is away: {reason}"))
        if connection is not None:
            if reason != CLOSED:
                logger.warning("Lost the connection to Redis: %s", reason)
            receiver = self._tasks[2] if len(self._tasks) > 2 else None
            if receiver is not None and receiver is not asyncio.current_task():
                receiver.cancel()
            await connection.disconnect(nowait=True)
