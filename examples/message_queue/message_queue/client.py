"""Clients that block: :class:`Producer` and :class:`Consumer`."""

from __future__ import annotations

import socket
from contextlib import suppress
from time import monotonic
from types import TracebackType

from . import protocol
from .endpoint import Endpoint
from .errors import ConnectionClosedError, MessageQueueError

_CHUNK = 65_536


class Client(Endpoint):
    """A connection to the server; a context manager, which connects and closes.

    Not for several threads at a time: give each its own.

    Args: those of :class:`~.endpoint.Endpoint`.
    """

    _socket: socket.socket | None = None

    def connect(self) -> None:
        """Connect and shake hands; without effect where that is done.

        Raises:
            ProtocolError: the server refuses; says why.
            ConnectionClosedError, OSError: there is no server, or none that answers.
        """
        if self._socket is not None:
            return
        self._dialogue.restart()
        self._socket = socket.create_connection((self.host, self.port), self.timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.sendall(self._dialogue.handshake.encode())
            deadline = _deadline(self.timeout)
            while not self._dialogue.is_greeted:
                self._read(deadline)
        except BaseException:
            self.abort()
            raise

    def close_socket(self) -> None:
        """Say SHUTDOWN, wait for the answer, and close; without effect where that is done.

        A consumer acknowledges the last message with it, unless it still waits for one.
        """
        if self._socket is None:
            return
        try:
            if not self._dialogue.is_fetching:
                self._send(self._dialogue.framing.frame(protocol.SHUTDOWN))
                deadline = _deadline(self.timeout)
                while self._receive(deadline) != protocol.CLOSE_CON:
                    pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Close without a word: what a consumer has not acknowledged goes back to the queue."""
        sock, self._socket = self._socket, None
        if sock is not None:
            with suppress(OSError):
                sock.close()

    def _send(self, data: bytes) -> None:
        sock = self._connected()
        sock.settimeout(self.timeout)
        try:
            sock.sendall(data)
        except OSError:
            self.abort()
            raise

    def _receive(self, deadline: float | None) -> bytes:
        while (body := self._dialogue.take()) is None:
            self._read(deadline)
        return body

    def _read(self, deadline: float | None) -> None:
        """Read once; TimeoutError, with all kept as it was, where nothing comes in time."""
        sock = self._connected()
        left = None if deadline is None else deadline - monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("no answer came in time")
        sock.settimeout(left)
        try:
            data = sock.recv(_CHUNK)
        except TimeoutError:
            raise TimeoutError("no answer came in time") from None
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

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionClosedError("not connected: call connect() first")
        return self._socket

    def __enter__(self) -> Client:
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close_socket()
        else:
            self.abort()


class Producer(Client):
    """Publishes messages to a topic."""

    TYPE = protocol.PRODUCER

    def publish(self, message: str) -> None:
        """Publish; returns when the broker has the message.

        Args:
            message: any text but ``SHUTDOWN``.

        Raises:
            PublishError: the server refuses it; says why.
            ConnectionClosedError, OSError: the connection broke, or no answer came in
                :attr:`timeout` seconds (TimeoutError): the message may be in the queue or not.
                The connection is closed.
            ValueError: the message cannot travel.
        """
        self._send(self._dialogue.encode_message(message))
        try:
            answer = self._receive(_deadline(self.timeout))
        except TimeoutError:
            self.abort()  # a later answer would be taken for that to the next message
            raise
        self._dialogue.check_acknowledged(answer)

    def __enter__(self) -> Producer:
        self.connect()
        return self


class Consumer(Client):
    """Fetches messages of a topic.

    A message is acknowledged by the next :meth:`fetch` or by :meth:`close_socket`. Where the
    connection breaks before, and where the ``with`` block is left by an error, it goes back to
    the queue.
    """

    TYPE = protocol.CONSUMER

    def fetch(self, timeout: float | None = None) -> str | None:
        """Acknowledge the last message and wait for the next.

        Args:
            timeout: seconds; default: for ever.

        Returns:
            The message; None where none came in time. The server goes on waiting for it then:
            the next call of ``fetch`` gets it.

        Raises:
            ConnectionClosedError, OSError: the connection broke.
        """
        if not self._dialogue.is_fetching:
            self._send(self._dialogue.framing.frame(protocol.FETCH))
            self._dialogue.is_fetching = True
        try:
            body = self._receive(_deadline(timeout))
        except TimeoutError:
            return None
        self._dialogue.is_fetching = False
        return body.decode()

    def acknowledge(self) -> None:
        """Acknowledge the last message now; returns when the broker has taken it.

        Raises:
            PublishError: there is none.
        """
        self._say(protocol.ACK)

    def put_back(self) -> None:
        """Put the last message back into the queue.

        Raises:
            PublishError: there is none.
        """
        self._say(protocol.NACK)

    def _say(self, word: bytes) -> None:
        if self._dialogue.is_fetching:
            raise ConnectionClosedError("a fetch is under way: there is no message to settle")
        self._send(self._dialogue.framing.frame(word))
        self._dialogue.check_acknowledged(self._receive(_deadline(self.timeout)))

    def __enter__(self) -> Consumer:
        self.connect()
        return self


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else monotonic() + timeout
