"""A proxy before RabbitMQ that says in another order which messages it has confirmed."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

from .process import free_port

_FRAME = struct.Struct(">BHI")
_METHOD = struct.Struct(">BHIHHQB")
_END = b"\xce"
_METHOD_FRAME, _BASIC, _ACK, _NACK = 1, 60, 80, 120


class Verdict(NamedTuple):
    """What a broker says of a message, or with ``is_multiple`` of all before it as well."""

    number: int
    is_refusal: bool
    is_multiple: bool = False


#: What to say in place of what the broker says of the first two messages of a channel.
Reordering = Callable[[Sequence[Verdict]], Sequence[Verdict]]


class ConfirmProxy:
    """Passes on what a client and RabbitMQ say, but for two verdicts. A context manager.

    RabbitMQ settles messages in the order in which their queues do, so that any order is right.

    Args:
        host, port: the server's.
        reorder: gets the first two verdicts by their numbers; returns what the client is told.
    """

    def __init__(self, host: str, port: int, reorder: Reordering) -> None:
        self.host, self.port = "127.0.0.1", free_port()
        self._target = (host, port)
        self._reorder = reorder
        self._verdicts: dict[int, Verdict] = {}
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server((self.host, self.port))
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> ConfirmProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for end in (self._listener, *self._ends):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed by the other side
                pass
            end.close()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._ends += [client, server]
            for target, ends in ((self._ask, (client, server)), (self._answer, (server, client))):
                thread = threading.Thread(target=target, args=ends, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while said := client.recv(65536):
                server.sendall(said)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        try:
            with server.makefile("rb") as stream:
                while head := stream.read(_FRAME.size):
                    kind, channel, size = _FRAME.unpack(head)
                    frame = head + stream.read(size + len(_END))
                    client.sendall(b"".join(self._told(kind, channel, frame)))
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _told(self, kind: int, channel: int, frame: bytes) -> list[bytes]:
        if kind != _METHOD_FRAME or len(frame) != _METHOD.size + len(_END):
            return [frame]
        *_, room, method, number, bits = _METHOD.unpack(frame[: _METHOD.size])
        if room != _BASIC or method not in (_ACK, _NACK) or len(self._verdicts) == 2:
            return [frame]
        first = 1 if bits & 1 else number
        for one in range(first, number + 1):
            self._verdicts.setdefault(one, Verdict(one, method == _NACK))
        if len(self._verdicts) < 2:
            return []
        told = self._reorder([self._verdicts[one] for one in sorted(self._verdicts)])
        return [_frame(channel, one) for one in told]


def _frame(channel: int, verdict: Verdict) -> bytes:
    method = _NACK if verdict.is_refusal else _ACK
    size = _METHOD.size - _FRAME.size
    head = (_METHOD_FRAME, channel, size, _BASIC, method, verdict.number, verdict.is_multiple)
    return _METHOD.pack(*head) + _END
