"""What is old leaves the ledger, in small transactions, oldest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, select

from ..sql.engines import writing
from ..sql.tables import task, undecodable
from . import queries
from .model import FINAL_STATES, PENDING, WAITING_STATES
from .results import Aged, Results

#: Called with how many tasks have been looked at, and how many there are to look at.
Progress = Callable[[int, int], object]

#: How long ago the newest recorded task may have been published before the monitor counts as
#: behind; and by how much publishers' clocks, and the order of copies, may differ.
LATENESS = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Pruning:
    """One pruning of a ledger; see :meth:`cadasta.workertoolbox.Ledger.prune`.

    No transaction deletes more than ``batch`` tasks or rows, and none reads more: each begins,
    by an index, where the one before ended.
    """

    engine: Engine
    results: Results
    before: datetime
    keep_failures: bool
    include_unfinished: bool
    batch: int
    on_progress: Progress | None = None

    def run(self) -> int:
        """Delete what is old; return how many tasks."""
        until = self._recorded_until()  # before the tasks are gone that tell it
        deleted = self._tasks()
        with self.engine.connect() as connection:
            unfinished, groups = self.include_unfinished, self.results.groups(connection)
            aged = [] if until is None else self.results.aged(connection, until, unfinished)
        for rows in aged:
            self._unrecorded(rows)
        if groups is not None:
            order = [groups.c.date_done, groups.c.id]
            self._rows(order, queries.naive(self.before), self.results.delete_groups)
        if not self.keep_failures:
            order = [undecodable.c.received_at, undecodable.c.id]
            self._rows(order, self.before, _delete_undecodable)
        return deleted

    def _recorded_until(self) -> datetime | None:
        """Return before which moment what has no task is old and will never have one.

        A task that ended before that moment was published before it, and copies are recorded in
        the order of their publication: where the monitor is days behind, those of results that are
        old already may still wait. None where nothing is recorded: nobody knows.
        """
        now = datetime.now(timezone.utc)
        with self.engine.connect() as connection:
            newest: datetime | None = connection.scalar(queries.newest(now))
        if newest is None or now - newest <= LATENESS:
            return newest and self.before
        return min(self.before, newest - LATENESS)

    def _leaves(
        self, state: str | None, is_untold: bool = False, has_expired: bool = False
    ) -> bool:
        is_final = is_untold or self.include_unfinished or state in FINAL_STATES
        if has_expired and (state or PENDING) in WAITING_STATES:
            is_final = True  # no worker will begin it any more
        return is_final and not (self.keep_failures and state == "FAILURE")

    def _tasks(self) -> int:
        with self.engine.connect() as connection:
            old = queries.expired(self.before, None, None).subquery()
            total = connection.scalar(select(func.count()).select_from(old)) or 0
        seen = deleted = 0
        for untold in self._expired():
            states = self.results.states(list(untold))
            doomed = [key for key, how in untold.items() if self._leaves(states.get(key), *how)]
            if doomed:
                deleted += self._delete(doomed)
            seen += len(untold)
            if self.on_progress is not None:
                self.on_progress(seen, max(seen, total))
        return deleted

    def _expired(self) -> Iterator[dict[str, tuple[bool, bool]]]:
        """Give ids of old tasks; whether nobody will ever be told its end; whether it expired."""
        now = datetime.now(timezone.utc)
        after: tuple[datetime, str] | None = None
        while True:
            with self.engine.connect() as connection:
                rows = connection.execute(queries.expired(self.before, self.batch, after)).all()
            if not rows:
                return
            after = (rows[-1].published_at, rows[-1].task_id)
            yield {
                row.task_id: (
                    row.ignore_result and (row.eta is None or row.eta < self.before),
                    row.expires is not None and row.expires < now,
                )
                for row in rows
            }

    def _delete(self, ids: Sequence[str]) -> int:
        with writing(self.engine) as connection:
            # A retry may have been published since.
            still = task.c.last_published_at < self.before
            gone = connection.execute(delete(task).where(task.c.task_id.in_(ids), still)).rowcount
            self.results.delete(connection, self._without_task(connection, ids))
        return gone

    def _without_task(self, connection: Connection, ids: Sequence[str]) -> list[str]:
        recorded = set(connection.execute(queries.recorded(ids)).scalars())
        return [key for key in dict.fromkeys(ids) if key not in recorded]

    def _unrecorded(self, aged: Aged) -> None:
        """Delete results, or attempts, of tasks that were never recorded, or no longer are.

        Celery stores the failure of a chain for each of its later tasks, which are never published;
        a producer without the toolbox records nothing. Nor does another app that stores its results
        in the same table: nothing tells them from these.
        """
        after: Sequence[Any] | None = None
        while True:
            query = queries.aged(aged.columns, aged.order, aged.condition, after, self.batch)
            with self.engine.connect() as connection:
                rows = connection.execute(query).all()
                doomed = self._without_task(connection, [row.task_id for row in rows])
            if not rows:
                return
            after = rows[-1][-len(aged.order) :]
            if aged.have_states:
                states = {row.task_id: row.status for row in rows}
                doomed = [key for key in doomed if self._leaves(states[key])]
            else:  # attempts go with their result
                told = self.results.states(doomed)
                doomed = [key for key in doomed if key not in told]
            if doomed:
                with writing(self.engine) as connection:
                    self.results.delete(connection, doomed)
            if not self.results.are_deletable:
                return

    def _rows(
        self,
        order: Sequence[ColumnElement[Any]],
        moment: datetime,
        remove: Callable[[Connection, Sequence[int]], None],
    ) -> None:
        """Delete the rows from before a moment, in the order of that and of their number."""
        after: Sequence[Any] | None = None
        while True:
            with self.engine.connect() as connection:
                query = queries.aged([], order, order[0] < moment, after, self.batch)
                rows = connection.execute(query).all()
            if not rows:
                return
            after = rows[-1]
            with writing(self.engine) as connection:
                remove(connection, [row.id for row in rows])


def _delete_undecodable(connection: Connection, ids: Sequence[int]) -> None:
    connection.execute(delete(undecodable).where(undecodable.c.id.in_(ids)))
