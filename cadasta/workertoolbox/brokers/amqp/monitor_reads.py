"""How the monitor reads from RabbitMQ: many frames with one system call.

py-amqp asks the operating system nine times for each message. At ten thousand messages a second
that is a fifth of the monitor's time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: The most bytes that one call takes.
RECEIVE_BYTES = 262_144
#: Seconds after which a broker that stops in the middle of a frame counts as gone.
STALLED = 10.0


class BufferedReceiver:
    """Stands in for a socket's ``recv`` and keeps what is not asked for yet."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._data = b""
        self._at = 0

    @property
    def has_more(self) -> bool:
        """Whether there are bytes that no system call is needed for."""
        return self._at < len(self._data)

    def __call__(self, size: int) -> bytes:
        """At most ``size`` bytes; none where the peer has closed the connection."""
        start = self._at
        if start >= len(self._data):
            self._data = self._receive(RECEIVE_BYTES)
            start = 0
        part = self._data[start : start + size]
        self._at = start + len(part)
        return part


def buffer_reads(connection: Any) -> BufferedReceiver | None:
    """Let ``connection``, a kombu connection to RabbitMQ, read ahead; what it reads with.

    Only where py-amqp reads a plain socket as its version 5 does; TLS reads ahead by itself.
    """
    transport: Any = getattr(connection.connection, "transport", None)
    sock = getattr(transport, "sock", None)
    if sock is not None and getattr(transport, "_quick_recv", None) == sock.recv:
        # Reading what is buffered needs no timeout, and a timeout costs two system calls; this
        # one is for a broker that stops in the middle of a frame.
        sock.settimeout(STALLED)
        receiver = BufferedReceiver(sock.recv)
        transport._quick_recv = receiver
        return receiver
    return None
