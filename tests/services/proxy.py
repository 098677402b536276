"""A TCP proxy that falls silent when it is told to, as a frozen server does: TCP goes on."""

from __future__ import annotations

import socket
import threading
from types import TracebackType

from .process import free_port


class SilentProxy:
    """Passes on what clients and a server say, until it is silenced. A context manager.

    Args:
        host, port: the server's.
        at: the port to listen on; default a free one.
    """

    def __init__(self, host: str, port: int, at: int | None = None) -> None:
        self.host, self.port = "127.0.0.1", at or free_port()
        self._target = (host, port)
        self._talking = threading.Event()
        self._talking.set()
        self._pairs: list[_Pair] = []
        self._listener = socket.create_server((self.host, self.port))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def silence(self, *, only_open: bool = False) -> None:
        """Pass nothing on any more; with ``only_open``, new connections are served as ever."""
        for pair in list(self._pairs):
            pair.talking.clear()
        if not only_open:
            self._talking.clear()

    def resume(self) -> None:
        """Pass on what has come meanwhile, and all that comes."""
        self._talking.set()
        for pair in list(self._pairs):
            pair.talking.set()

    def replace_host(self, port: int) -> None:
        """Pass nothing on any more on the open connections; new ones lead to that port."""
        self.silence(only_open=True)
        self._target = (self._target[0], port)

    def close(self) -> None:
        """End all connections; new ones are refused."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:  # closed already
            return
        self._listener.close()
        self._thread.join()
        self.resume()
        for pair in self._pairs:
            pair.close()

    def __enter__(self) -> SilentProxy:
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
            self._pairs.append(_Pair(client, self._target, self._talking))


class _Pair:
    """One client's connection and the server's."""

    def __init__(
        self, client: socket.socket, target: tuple[str, int], talking: threading.Event
    ) -> None:
        self.talking = threading.Event()
        if talking.is_set():
            self.talking.set()
        self._ends = (client, socket.create_connection(target))
        one, other = self._ends
        self._threads = [
            threading.Thread(target=self._pass_on, args=ends, daemon=True)
            for ends in ((one, other), (other, one))
        ]
        for thread in self._threads:
            thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self.talking.wait()
                sink.sendall(data)
        except OSError:
            pass
        self.talking.wait()
        for end in self._ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        for end in self._ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()
