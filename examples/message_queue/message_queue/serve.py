"""A server's process, from its start to a signal."""

from __future__ import annotations

import asyncio
import signal

from .control import Control
from .server import Server
from .settings import Settings


def serve(settings: Settings, host: str, port: int) -> None:
    """Run a server until SIGTERM or SIGINT.

    Raises:
        MessageQueueError, cadasta.workertoolbox.ToolboxError: a setting cannot work.
        OSError: the address cannot be used.
    """
    asyncio.run(_serve(settings, host, port))


async def _serve(settings: Settings, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = Server(settings)
    control = Control(await server.bind(host, port), server.status)
    await control.start()
    try:
        await server.start()
        await stopping.wait()
    finally:
        await server.stop()
        control.stop()
