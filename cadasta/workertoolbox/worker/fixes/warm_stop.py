"""A step of the worker, so that a warm stop or a lost connection runs no task a second time."""

from __future__ import annotations

import select
from inspect import isgenerator
from time import monotonic
from typing import Any

from celery import bootsteps

from ...plain import stopping
from .known import Workaround
from .process_pools import has_event_loop

_WORKAROUND = Workaround(
    "a task may run a second time where its worker is stopped, or loses its connection, at the "
    "moment that it begins"
)

#: Seconds that a pool process may take to accept what it was handed; it does so at once.
PATIENCE = 2.0


class AcceptBeforeFlush(bootsteps.StartStopStep):
    """Let the pool accept the tasks that it was handed before its unaccepted ones are dropped.

    When its connection closes, Celery 5.7 drops from the pool's books (``AsynPool.flush``) every
    task that was not accepted so far. The broker delivers these again. But one that is written to
    a pool process already runs there all the same, so that it runs twice, and its process waits
    30 s for somebody to read its result. Seen here in one of eight warm stops under load, on every
    broker alike.
    """

    def start(self, parent: Any) -> None:
        """Celery calls it with the consumer, at the start and after each lost connection."""
        if not has_event_loop(parent.pool, _WORKAROUND):  # The other pools' ``flush`` does nothing.
            return
        flush = parent.pool.flush
        if isinstance(flush, Flush):
            return
        parent.pool.flush = Flush(flush, parent.pool, parent.hub)


class AnnounceStop(bootsteps.StartStopStep):
    """Tell the pool's processes of a stop that no signal began, such as ``control shutdown``."""

    # Celery stops in the order opposite to that of the start: before the pool.
    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Celery calls it with the worker: an earlier one of this process may have stopped."""
        stopping.prepare()

    def stop(self, parent: Any) -> None:
        """Celery calls it with the worker, before the pool is to end."""
        stopping.announce()

    terminate = stop


class Flush:
    """``flush`` of a pool whose processes are read by Celery's event loop ``hub``."""

    def __init__(self, flush: Any, pool: Any, hub: Any) -> None:
        self.flush = flush
        self.pool = pool
        self.hub = hub

    def __call__(self) -> None:
        """Drop what is not accepted soon."""
        with _WORKAROUND.stepping_aside():
            self._wait()
        self.flush()

    def _wait(self) -> None:
        processes = self.pool._pool
        give_up = monotonic() + PATIENCE
        while _handed_out(processes) and monotonic() < give_up:
            read_messages(self.hub, processes._fileno_to_outq, 0.05)


def _handed_out(processes: Any) -> bool:
    return any(
        job._write_to is not None and not job._accepted for job in tuple(processes._cache.values())
    )


def read_messages(hub: Any, descriptors: Any, seconds: float) -> None:
    """Do what one round of the event loop would, for these descriptors and no others."""
    poll = select.poll()
    for descriptor in tuple(descriptors):
        if descriptor in hub.readers:
            poll.register(descriptor, select.POLLIN)
    for descriptor, _ in poll.poll(seconds * 1000):
        callback, arguments = hub.readers[descriptor]
        try:
            if isgenerator(callback):  # a message of which a part was read before
                next(callback)
            else:
                callback(*arguments)
        except StopIteration:
            pass
        except (OSError, EOFError):
            hub.remove(descriptor)
