"""Server-sent events: every transition as it happens, and how the work stands.

The processes that make the transitions are others than this one, so each stream reads the table.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import or_
from sqlalchemy.exc import SQLAlchemyError

from .database import Database
from .reading import Summary, summary, transition_ids, transitions
from .tables import order_transitions

#: Seconds between two looks into the table.
INTERVAL = 0.25
#: Seconds that a summary is good for.
SUMMARY_AGE = 0.5
#: Seconds after which something is sent where nothing happens, so that a broken line is noticed.
HEARTBEAT = 2.0
#: Seconds that a transaction may take between the numbering of its rows and its commit.
PATIENCE = 10.0
#: Transitions a look.
_BATCH = 500


class Cursor:
    """How far a stream has read.

    A transition's id is given before its commit, so a lower one may appear after a higher one. The
    gaps are remembered, and asked for again for a while.

    Args:
        high: the highest id that counts as seen.
        missing: lower ids that may still appear, with the time (monotonic seconds) to give up.
    """

    def __init__(self, high: int, missing: dict[int, float] | None = None) -> None:
        self.high = high
        self.missing = dict(missing or {})

    @classmethod
    def at_end(cls, last_ids: list[int], now: float) -> Cursor:
        """One that starts after the last ids, given ascending."""
        if not last_ids:
            return cls(0)
        gaps = set(range(last_ids[0], last_ids[-1])) - set(last_ids)
        return cls(last_ids[-1], dict.fromkeys(gaps, now + PATIENCE))

    @property
    def watermark(self) -> int:
        """Everything up to this id has been seen: who begins again after it misses nothing."""
        return min(self.missing) - 1 if self.missing else self.high

    def see(self, transition_id: int, now: float) -> None:
        """Note one that was read; they have to come in ascending order."""
        if self.missing.pop(transition_id, None) is None and transition_id > self.high:
            gap = range(self.high + 1, transition_id)
            self.missing.update(dict.fromkeys(gap[-_BATCH:], now + PATIENCE))
            self.high = transition_id

    def give_up(self, now: float) -> None:
        """Forget the gaps that have been there for long: their transactions were rolled back."""
        self.missing = {one: until for one, until in self.missing.items() if until > now}


class Stream:
    """The text of one stream; ``close`` frees its place, also where nothing was ever read."""

    def __init__(self, text: Iterator[str], free: Callable[[], None]) -> None:
        self._text = text
        self._free: Callable[[], None] | None = free

    def __iter__(self) -> Iterator[str]:
        return self._text

    def close(self) -> None:
        """Free its place; once."""
        free, self._free = self._free, None
        if free is not None:
            free()


class Events:
    """The streams of one API process.

    Args:
        database: where the transitions are.
        most: streams at a time; each holds a thread of the server.
        agents: how many agents there are, None where that is not known; default: never known.
    """

    def __init__(
        self,
        database: Database,
        most: int,
        agents: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._database = database
        self._agents = agents
        self._free = threading.BoundedSemaphore(most)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._summary: tuple[float, Summary] | None = None

    def open(self, after: int | None) -> Stream | None:
        """A stream; None where there are too many.

        Args:
            after: begin after this watermark (``Last-Event-ID``); None: with what comes now.
        """
        if not self._free.acquire(blocking=False):
            return None
        return Stream(self._stream(after), self._free.release)

    def close(self) -> None:
        """End all streams."""
        self._closed.set()

    def _stream(self, after: int | None) -> Iterator[str]:
        yield "retry: 1000\n\n"
        cursor: Cursor | None = None
        shown: Summary | None = None
        work: dict[str, Any] = {}
        quiet_since = time.monotonic()
        while not self._closed.is_set():
            try:
                if cursor is None:
                    cursor = self._begin(after)
                text = "".join(self._news(cursor))
                standing = self._standing()
            except SQLAlchemyError:
                yield 'event: problem\ndata: {"error": "the database cannot be reached"}\n\n'
                self._closed.wait(2)
                shown = None
                continue
            if standing != shown:
                shown = standing
                text += _event("summary", standing.to_dict(), cursor.watermark)
            moved_at = standing.moved_at and standing.moved_at.isoformat()
            found = {"agents": self._agents(), "moved_at": moved_at}
            if found != work:
                work = found
                text += _event("work", work, cursor.watermark)
            if not text and time.monotonic() - quiet_since > HEARTBEAT:
                text = ": nothing new\n\n"
            if text:
                quiet_since = time.monotonic()
                yield text
            self._closed.wait(INTERVAL)

    def _begin(self, after: int | None) -> Cursor:
        with self._database.read() as connection:
            end = Cursor.at_end(transition_ids(connection), time.monotonic())
        # A mark beyond the end is one of another database.
        return end if after is None or after > end.high else Cursor(after)

    def _news(self, cursor: Cursor) -> Iterator[str]:
        now = time.monotonic()
        cursor.give_up(now)
        column = order_transitions.c.id
        where = column > cursor.high
        if cursor.missing:
            where = or_(where, column.in_(sorted(cursor.missing)))
        with self._database.read() as connection:
            rows = transitions(connection, where, _BATCH)
        for row in rows:
            cursor.see(row["id"], now)
            yield _event("transition", row, cursor.watermark)

    def _standing(self) -> Summary:
        with self._lock:  # One stream counts for all.
            now = time.monotonic()
            if self._summary is None or now - self._summary[0] > SUMMARY_AGE:
                with self._database.read() as connection:
                    self._summary = (now, summary(connection))
            return self._summary[1]


def _event(kind: str, data: dict[str, Any], watermark: int) -> str:
    return f"event: {kind}\nid: {watermark}\ndata: {json.dumps(data)}\n\n"
