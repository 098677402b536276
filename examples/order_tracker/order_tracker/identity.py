"""How a process is called in the history."""

from __future__ import annotations

import os
import socket


def process_name(kind: str) -> str:
    """Kind, process id and host, as ``agent-4711@host``."""
    return f"{kind}-{os.getpid()}@{socket.gethostname()}"
