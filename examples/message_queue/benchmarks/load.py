"""Many clients of the protocol in one thread: what they do costs the server's machine little."""

from __future__ import annotations

import hashlib
import os
import selectors
import socket
import time

from message_queue.settings import HEAD_SECRET, TAIL_SECRET


def _hex(name: str, default: str) -> bytes:
    return hashlib.sha256(os.environ.get(name, default).encode()).hexdigest().encode()


class Clients:
    """Connections that each say a word, and say the next when it is answered."""

    def __init__(self, port: int, kind: str, topic: str, count: int) -> None:
        self.head = _hex("MQ_HEAD_SECRET", HEAD_SECRET)
        self.tail = _hex("MQ_TAIL_SECRET", TAIL_SECRET)
        self.sockets: list[socket.socket] = []
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets.append(sock)
        hello = f'{{"type": "{kind}", "topic": "{topic}"}}'.encode()
        for sock in self.sockets:
            sock.sendall(hello)
        for sock in self.sockets:
            if sock.recv(5, socket.MSG_WAITALL) != b"ROGER":
                raise RuntimeError("the server refuses a connection")

    def run(self, word: bytes, total: int) -> float:
        """Say ``word`` ``total`` times over all connections; the seconds until all is answered."""
        request = self.head + word + self.tail
        selector = selectors.DefaultSelector()
        buffers = dict.fromkeys(self.sockets, b"")
        asked = answered = 0
        started = time.perf_counter()
        for sock in self.sockets:
            selector.register(sock, selectors.EVENT_READ, sock)
            if asked < total:
                sock.sendall(request)
                asked += 1
        while answered < total:
            for key, _ in selector.select():
                client: socket.socket = key.data
                data = buffers[client] + client.recv(65_536)
                if not data.endswith(self.tail):
                    buffers[client] = data
                    continue
                if b"UNKNOWN_WORD" in data:
                    raise RuntimeError(data.decode())
                buffers[client] = b""
                answered += 1
                if asked < total:
                    client.sendall(request)
                    asked += 1
        seconds = time.perf_counter() - started
        selector.close()
        return seconds

    def close(self) -> None:
        """End in order: the last messages are acknowledged."""
        for sock in self.sockets:
            sock.sendall(self.head + b"SHUTDOWN" + self.tail)
        for sock in self.sockets:
            sock.settimeout(10)
            while sock.recv(65_536):
                pass
            sock.close()
