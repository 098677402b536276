"""Tells each process of a worker that the worker stops, so that no wait outlasts it."""

from __future__ import annotations

import mmap
import struct
import time
from typing import Any

from celery import bootsteps, signals

#: Seconds after the begin of a stop in which what failed is still tried again.
GRACE = 4.0

#: The moment at which the stop began, on the clock that all processes share; 0.0 before. The
#: worker's main process makes it before it forks its pool.
_MOMENT = struct.Struct("d")
_shared: mmap.mmap | None = None


def watch() -> None:
    """Begin anew, in a worker's main process before its pool starts: nothing stops."""
    global _shared
    if _shared is None:
        _shared = mmap.mmap(-1, _MOMENT.size)  # anonymous, shared with what is forked later
        for signal, receiver in (
            (signals.worker_shutting_down, begin),
            (signals.worker_shutdown, end),
        ):
            signal.connect(receiver, weak=False, dispatch_uid="workertoolbox.stopping")
    end()


def is_worker() -> bool:
    """Tell whether this is a worker's process: the main one, or one of its pool."""
    return _shared is not None


def end(**_: Any) -> None:
    """Forget the stop: who goes on in this process, such as a test, is no worker any more."""
    if _shared is not None:
        _MOMENT.pack_into(_shared, 0, 0.0)


def begin(**_: Any) -> None:
    """Note that the worker stops now; a later call changes nothing."""
    if _shared is not None and _MOMENT.unpack_from(_shared)[0] == 0.0:
        _MOMENT.pack_into(_shared, 0, time.monotonic())


def is_over() -> bool:
    """Tell whether the worker stops and :data:`GRACE` has passed."""
    if _shared is None:
        return False
    moment: float = _MOMENT.unpack_from(_shared)[0]
    return moment != 0.0 and time.monotonic() > moment + GRACE


def sleep(seconds: float) -> bool:
    """Wait; False, and earlier, where the worker stops and :data:`GRACE` has passed."""
    end = time.monotonic() + seconds
    while not is_over():
        left = end - time.monotonic()
        if left <= 0:
            return True
        time.sleep(min(left, 0.25))
    return False


class TellPool(bootsteps.StartStopStep):
    """Tell the pool's processes of each stop, also one that no signal began."""

    # Celery stops in the order opposite to that of the start: before the pool.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        watch()

    def stop(self, parent: Any) -> None:
        """Celery calls it with the worker, before the pool is to end."""
        begin()

    terminate = stop
