"""TCP's keepalives, by which the system notices that the other host has vanished."""

from __future__ import annotations

import math
import os
import socket


def keepalives(timeout: float) -> dict[str, int]:
    """Return TCP's options, by their names in :mod:`socket`: within three times the timeout."""
    seconds = max(1, math.ceil(timeout))
    return {
        "TCP_KEEPIDLE": seconds,
        "TCP_KEEPINTVL": max(1, seconds // 2),
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 2000 * seconds,  # milliseconds without an acknowledgement
    }


def keep_alive(handle: int, timeout: float) -> None:
    """Set them for the socket of this descriptor, which stays open."""
    with socket.socket(fileno=os.dup(handle)) as duplicate:
        if duplicate.family not in (socket.AF_INET, socket.AF_INET6):
            return
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in keepalives(timeout).items():
            option = getattr(socket, name, None)  # not on each system
            if option is not None:
                duplicate.setsockopt(socket.IPPROTO_TCP, option, value)
