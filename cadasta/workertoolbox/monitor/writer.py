"""Writes the monitor's batches in a thread of its own, so that reading goes on meanwhile.

While the database is away it tries again, with back-off, for as long as it takes.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ..errors import LedgerError
from ..ledger.ledger import Ledger
from ..ledger.model import Undecodable
from ..messages.decoding import TaskRecord
from ..plain.backoff import Backoff
from ..plain.urls import mask_url

logger = logging.getLogger(__name__)

#: Seconds before the first and the longest wait between two attempts after a failure.
FIRST_RETRY, LONGEST_RETRY = 0.5, 10.0


@dataclass(slots=True)
class Batch:
    """Decoded messages of one channel, and the delivery tags that acknowledge them."""

    channel: Any
    tags: list[Any] = field(default_factory=list)
    records: list[TaskRecord] = field(default_factory=list)
    undecodable: list[Undecodable] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tags)

    def add(self, tag: Any, item: TaskRecord | Undecodable) -> None:
        """Hold one more message."""
        self.tags.append(tag)
        if isinstance(item, TaskRecord):
            self.records.append(item)
        else:
            self.undecodable.append(item)


class Writer:
    """Takes batches, writes them in order, and hands back those that are in the ledger.

    Args:
        ledger: where to write.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: deque[Batch] = deque()
        self._written: deque[Batch] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def has_written(self) -> bool:
        """Whether :meth:`take_written` has anything to tell."""
        return bool(self._written) or self._failure is not None

    @property
    def is_busy(self) -> bool:
        """Whether a batch is waiting or under way."""
        return bool(self._waiting)

    def submit(self, batch: Batch) -> None:
        """Write ``batch`` after those before it; the broker's prefetch bounds how many wait."""
        if batch:
            with self._changed:
                self._waiting.append(batch)
                self._changed.notify_all()

    def drop_waiting(self) -> None:
        """Forget the batches that wait, all but the one under way."""
        with self._changed:
            while len(self._waiting) > 1:
                self._waiting.pop()

    def take_written(self) -> list[Batch]:
        """The batches that have been committed since the last call.

        Raises:
            BaseException: what has ended the thread, if it was no error of the database.
        """
        if self._failure is not None:
            raise self._failure
        found = []
        while self._written:
            found.append(self._written.popleft())
        return found

    def stop(self) -> None:
        """Write what is waiting, without a second attempt, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        retry = Backoff(FIRST_RETRY, LONGEST_RETRY)
        try:
            while True:
                with self._changed:
                    while not self._waiting and not self._stopping:
                        self._changed.wait()
                    if not self._waiting:
                        return
                    batch = self._waiting[0]
                if self._write(batch, retry):
                    with self._changed:
                        self._waiting.popleft()
                        self._written.append(batch)
                        self._changed.notify_all()
                elif self._stopping:
                    return
        except BaseException as exc:  # shown by the thread that reads the broker
            self._failure = exc
            logger.exception("The thread that writes the ledger has failed")

    def _write(self, batch: Batch, retry: Backoff) -> bool:
        """One attempt; waits after one that failed."""
        try:
            # These first: writing them again changes nothing, while publications are counted.
            self._ledger.record_undecodable(batch.undecodable)
            self._ledger.record(batch.records)
        except (SQLAlchemyError, LedgerError) as exc:
            wait = retry.next()
            logger.warning(
                "The ledger cannot be written (%s); holding %d messages, next attempt in %.1f s",
                shown(exc),
                sum(map(len, list(self._waiting))),
                wait,
            )
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, wait)
            return False
        if retry.has_failed:
            retry.reset()
            logger.info("The ledger is written again")
        return True


def shown(exc: BaseException) -> str:
    """An error in one line, without passwords."""
    lines = str(exc).splitlines() or [""]
    return mask_url(f"{type(exc).__name__}: {lines[0]}")[:300]
