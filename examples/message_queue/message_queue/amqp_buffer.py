"""Fewer system calls for RabbitMQ: py-amqp makes nine to read one message and one for each word.

A server that hands out thousands of messages a second spends most of its time in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: The most bytes that one call takes.
RECEIVE_BYTES = 262_144
#: Seconds after which a broker that stops in the middle of a frame counts as gone.
STALLED = 10.0


class Buffer:
    """Stands between py-amqp and its socket: reads ahead, and writes when it is time to wait."""

    def __init__(
        self, receive: Callable[[int], bytes] | None, send: Callable[[bytes], None] | None
    ) -> None:
        self._receive = receive
        self._send = send
        self._data = b""
        self._at = 0
        self._written: list[bytes] = []

    @property
    def is_used(self) -> bool:
        """Whether it stands there; else py-amqp works as it always does."""
        return self._receive is not None

    @property
    def has_more(self) -> bool:
        """Whether there are bytes that no system call is needed for."""
        return self._at < len(self._data)

    def receive(self, size: int) -> bytes:
        """At most ``size`` bytes; none where the broker has closed the connection."""
        start = self._at
        if start >= len(self._data):
            self.flush()  # the broker may wait for it
            assert self._receive is not None  # noqa: S101
            self._data = self._receive(RECEIVE_BYTES)
            start = 0
        part = self._data[start : start + size]
        self._at = start + len(part)
        return part

    def write(self, data: bytes) -> None:
        """Keep ``data`` until :meth:`flush`; a copy, since py-amqp uses its memory again."""
        self._written.append(bytes(data))

    def flush(self) -> None:
        """Send what was written."""
        if self._written:
            data, self._written = b"".join(self._written), []
            assert self._send is not None  # noqa: S101
            self._send(data)


def buffer(connection: Any) -> Buffer:
    """Let ``connection``, a kombu connection to RabbitMQ that is open, use a buffer.

    Only where py-amqp uses a plain socket as its version 5 does; TLS has a buffer of its own.
    """
    transport: Any = getattr(connection.connection, "transport", None)
    sock = getattr(transport, "sock", None)
    if (
        sock is None
        or getattr(transport, "_quick_recv", None) != sock.recv
        or getattr(transport, "_write", None) != sock.sendall
    ):
        return Buffer(None, None)
    sock.settimeout(STALLED)
    made = Buffer(sock.recv, sock.sendall)
    transport._quick_recv = made.receive
    transport._write = made.write
    return made


def read_all(connection: Any, buffered: Buffer) -> None:
    """Read what has come, once the connection's socket is ready, and no more."""
    if buffered.is_used:
        frames = connection.connection
        frames.blocking_read()
        while buffered.has_more:
            frames.blocking_read()
        return
    try:
        while True:
            connection.drain_events(timeout=0)
    except TimeoutError:
        pass
