"""A gate that a fork shuts, so that no other thread is where a child must not find it.

SQLite keeps notes of a process's locks in its memory. A child that is forked while another thread
uses a connection has these notes, believes them and takes no locks itself, or waits for locks that
nobody will give back. And SQLAlchemy asks a database once for its version: of a child that is
forked meanwhile nobody would ask it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Seconds that a fork waits for the other threads.
PATIENCE = 5.0


class ForkGate:
    """Threads go through it to use what must not be in use at a fork.

    Before a fork :meth:`shut`; then :meth:`open` in the parent and :meth:`start_over` in the child.
    """

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Be open, with nobody inside."""
        self._forking = threading.RLock()
        self._changed = threading.Condition()  # reentrant: a garbage collection may call `leave`
        self._shut_by: int | None = None
        #: How often each thread has entered and not left.
        self._inside: Counter[int] = Counter()

    @property
    def users(self) -> dict[int, int]:
        """How often each thread is inside."""
        return dict(self._inside)

    def enter(self) -> int:
        """Go inside, after a fork where one is under way; return the thread, for :meth:`leave`."""
        thread = threading.get_ident()
        with self._changed:
            # Whom the fork waits for must not wait for the fork.
            while self._shut_by not in (None, thread) and not self._inside[thread]:
                self._changed.wait()
            self._inside[thread] += 1
        return thread

    def leave(self, thread: int) -> None:
        """Undo one :meth:`enter` of ``thread``."""
        with self._changed:
            self._inside[thread] -= 1
            if self._inside[thread] <= 0:
                del self._inside[thread]
            self._changed.notify_all()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be inside within it."""
        thread = self.enter()
        try:
            yield
        finally:
            self.leave(thread)

    def shut(self) -> None:
        """Let nobody in any more, and wait until all others have left, or :data:`PATIENCE`."""
        self._forking.acquire()
        with self._changed:
            self._shut_by = thread = threading.get_ident()
            self._changed.wait_for(lambda: not self._inside.keys() - {thread}, PATIENCE)

    def open(self) -> None:
        """Let them in again."""
        with self._changed:
            self._shut_by = None
            self._changed.notify_all()
        self._forking.release()


#: That of this process.
gate = ForkGate()


def gated(pool_cls: type) -> type:
    """Return a pool like ``pool_cls``, whose connections are taken and given back inside."""

    class Gated(pool_cls):
        """Counts a thread as inside from taking a connection until that is given back."""

        def __init__(self, *args: Any, **options: Any) -> None:
            self._threads: dict[Any, int] = {}
            super().__init__(*args, **options)

        def _do_get(self) -> Any:
            thread = gate.enter()
            try:
                record = super()._do_get()
            except BaseException:
                gate.leave(thread)
                raise
            if record in self._threads:  # one that several use, or SQLAlchemy's own second try
                gate.leave(thread)
            else:
                self._threads[record] = thread
            return record

        def _do_return_conn(self, record: Any) -> None:
            try:
                super()._do_return_conn(record)
            finally:
                thread = self._threads.pop(record, None)
                if thread is not None:
                    gate.leave(thread)

    Gated.__name__ = Gated.__qualname__ = pool_cls.__name__
    return Gated
