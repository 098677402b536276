"""Tells all processes of a worker that it has been asked to stop, and since when."""

from __future__ import annotations

import mmap
import struct
import time

#: Seconds after that moment, or after the begin of a later wait, in which what failed is tried
#: again.
GRACE = 4.0

_MOMENT = struct.Struct("d")
#: Memory that the pool's processes share with the main process, which alone hears the signal.
_shared: list[mmap.mmap] = []


def prepare() -> None:
    """Share the moment with the processes forked from now on; a former one is forgotten."""
    if not _shared:
        _shared.append(mmap.mmap(-1, mmap.PAGESIZE))
    _MOMENT.pack_into(_shared[0], 0, 0.0)


def announce() -> None:
    """Say that the worker is being stopped; only the first time counts."""
    if _shared and since() is None:
        _MOMENT.pack_into(_shared[0], 0, time.monotonic())


def since() -> float | None:
    """Return when that was on :func:`time.monotonic`'s clock, or None."""
    if not _shared:
        return None
    moment: float = _MOMENT.unpack_from(_shared[0])[0]
    return moment or None


def is_over(start: float) -> bool:
    """Tell whether the worker stops, and a wait since ``start`` has had :data:`GRACE` for it.

    Args:
        start: when the wait began, on :func:`time.monotonic`'s clock.
    """
    moment = since()
    return moment is not None and time.monotonic() > max(moment, start) + GRACE


def sleep(seconds: float, start: float) -> bool:
    """Pause within a wait since ``start``; False, and earlier, where that is over."""
    end = time.monotonic() + seconds
    while not is_over(start):
        left = end - time.monotonic()
        if left <= 0:
            return True
        time.sleep(min(left, 0.25))
    return False
