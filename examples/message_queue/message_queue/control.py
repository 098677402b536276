"""A socket file beside each running server: ``status`` and ``stop`` find the server by it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import MessageQueueError, NotRunningError

#: Seconds that a server has to tell its state.
TIMEOUT = 5.0
#: Most bytes of a socket's path: 107 on Linux, 103 on macOS.
LONGEST_PATH = 103


def socket_path(port: int) -> Path:
    """Where the server on ``port`` has its file: a folder of this user alone.

    ``XDG_RUNTIME_DIR`` where it is set, else the folder for temporary files.
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"message_queue-{os.getuid()}" / f"{port}.sock"


class Control:
    """Tells the state to whoever connects.

    Args:
        port: the server's.
        status: its state, in JSON's types.
    """

    def __init__(self, port: int, status: Callable[[], dict[str, Any]]) -> None:
        self._path = socket_path(port)
        self._status = status
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            MessageQueueError: the folder belongs to another user, or its path is too long.
        """
        if len(os.fsencode(self._path)) > LONGEST_PATH:
            raise MessageQueueError(
                f"{self._path} is too long for a socket: set XDG_RUNTIME_DIR to a shorter path"
            )
        folder = self._path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(folder):
            raise MessageQueueError(f"{folder} belongs to another user: set XDG_RUNTIME_DIR")
        # Whoever has the port is the server: a file that is there is of a dead one.
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, self._path)

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(self._status()).encode())
        with suppress(OSError):
            await writer.drain()
        writer.close()

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)


def _is_ours(folder: Path) -> bool:
    return folder.stat().st_uid == os.getuid()


def ask_status(port: int) -> dict[str, Any]:
    """The state of the server on ``port`` of this machine.

    Raises:
        NotRunningError: there is none, or another user's.
    """
    path = socket_path(port)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT)
        try:
            if not _is_ours(path.parent):
                raise OSError("another user's")
            sock.connect(str(path))
            answer = b"".join(iter(lambda: sock.recv(65_536), b""))
            found = json.loads(answer)
        except (OSError, ValueError):
            raise NotRunningError(f"no server of this user listens on port {port}") from None
    if not isinstance(found, dict):
        raise NotRunningError(f"no server of this user listens on port {port}")
    return found
