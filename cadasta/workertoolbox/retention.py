"""What is old leaves the ledger, in small transactions, oldest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Protocol

from sqlalchemy import Connection, Engine, delete, func, select

from . import ledger_queries as queries
from .database import writing
from .ledger_values import FINAL_STATES, PENDING, WAITING_STATES
from .schema import task, undecodable

#: Called with how many tasks have been looked at, and how many there are to look at.
Progress = Callable[[int, int], object]


class ResultKeeper(Protocol):
    """Knows the results of tasks; see ``ledger_results.Results``."""

    def states(self, ids: Sequence[str]) -> dict[str, str]: ...

    def delete(self, connection: Connection, ids: Sequence[str]) -> None: ...

    def delete_groups(self, connection: Connection, before: datetime) -> None: ...


def prune(
    engine: Engine,
    results: ResultKeeper,
    before: datetime,
    *,
    keep_failures: bool,
    include_unfinished: bool,
    batch: int,
    on_progress: Progress | None,
) -> int:
    """Delete the tasks last published before that moment; return how many.

    See :meth:`cadasta.workertoolbox.ledger.Ledger.prune`.
    """
    with engine.connect() as connection:
        old = queries.expired(before, None, None).subquery()
        total = connection.scalar(select(func.count()).select_from(old)) or 0
    seen = deleted = 0
    for untold in _batches(engine, before, batch):
        states = results.states(list(untold))
        doomed = [
            key
            for key, (is_untold, has_expired) in untold.items()
            if (
                include_unfinished
                or is_untold
                or states.get(key) in FINAL_STATES
                or (has_expired and states.get(key, PENDING) in WAITING_STATES)
            )
            and not (keep_failures and states.get(key) == "FAILURE")
        ]
        if doomed:
            with writing(engine) as connection:
                # A retry may have been published since.
                still = task.c.last_published_at < before
                gone = connection.execute(delete(task).where(task.c.task_id.in_(doomed), still))
                results.delete(connection, doomed)
            deleted += gone.rowcount
        seen += len(untold)
        if on_progress is not None:
            on_progress(seen, max(seen, total))
    with writing(engine) as connection:
        results.delete_groups(connection, before)
        if not keep_failures:
            connection.execute(delete(undecodable).where(undecodable.c.received_at < before))
    return deleted


def _batches(engine: Engine, before: datetime, size: int) -> Iterator[dict[str, tuple[bool, bool]]]:
    """Give ids of old tasks; whether nobody will ever be told how one ended; whether it expired."""
    now = datetime.now(timezone.utc)
    after: tuple[datetime, str] | None = None
    while True:
        with engine.connect() as connection:
            rows = connection.execute(queries.expired(before, size, after)).all()
        if not rows:
            return
        after = (rows[-1].published_at, rows[-1].task_id)
        yield {
            row.task_id: (row.ignore_result, row.expires is not None and row.expires < now)
            for row in rows
        }
