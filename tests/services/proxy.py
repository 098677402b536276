"""A TCP proxy, behind which a server can vanish and be replaced."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType


class Proxy:
    """Forwards connections to ``port`` of 127.0.0.1, from its own ``port``."""

    def __init__(self, backend: int) -> None:
        #: Where the next connections lead.
        self.backend = backend
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def replace_host(self, backend: int) -> None:
        """Let nothing pass any more on the present connections; new ones lead to ``backend``."""
        self.backend = backend
        self._open.clear()
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        """Close all connections."""
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.backend))
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(*ends, self._open), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, is_open: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if not is_open.is_set():
                    return  # neither end hears of it
                target.sendall(data)
        if is_open.is_set():
            for one in (source, target):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
