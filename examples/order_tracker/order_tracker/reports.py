"""The rule on transitions: what a report from leader or agent changes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from .feeding import Feeding, lock_feed, mark_received, top_up
from .statuses import FINAL, QUEUED, steps_to
from .tables import order_transitions, orders

#: Characters of an error's text that the history keeps.
MAX_DETAIL = 500


@dataclass(frozen=True)
class Report:
    """What a leader or an agent tells of one unit.

    Args:
        order_id: the unit.
        attempt: the attempt that it is about.
        status: queued (by the leader), processing, success or error (by an agent).
        worker: who tells it.
        task_id: the task in which it happened.
        detail: more about it, such as an error's text.
    """

    order_id: int
    attempt: int
    status: str
    worker: str
    task_id: str
    detail: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As the arguments of a task."""
        return asdict(self)


@dataclass(frozen=True)
class Applied:
    """What a report has done: the transitions it made, and what is now to be published."""

    steps: list[tuple[str, str]]
    feedings: list[Feeding]


def apply_report(connection: Connection, report: Report, now: datetime, worker: str) -> Applied:
    """Apply a report, and give the place that it frees to the next unit.

    A report that comes late, twice or out of order changes nothing; nor does one of an earlier
    attempt or of an unknown unit.

    Args:
        connection: in a transaction that may write.
        report: the message.
        now: the time to note.
        worker: who feeds the next unit, for its history.
    """
    if report.status == QUEUED:
        mark_received(connection, report.task_id, report.worker, now)
        return Applied([], [])
    # Always the feed before a unit: two transactions never wait for each other.
    state = lock_feed(connection) if report.status in FINAL else None
    row = connection.execute(
        select(orders.c.status, orders.c.attempt)
        .where(orders.c.id == report.order_id)
        .with_for_update()
    ).one_or_none()
    if row is None or row.attempt != report.attempt:
        return Applied([], [])
    steps = steps_to(row.status, report.status)
    if not steps:
        return Applied([], [])
    connection.execute(
        update(orders)
        .where(orders.c.id == report.order_id)
        .values(status=report.status, moved_at=now)
    )
    connection.execute(
        insert(order_transitions),
        [
            {
                "order_id": report.order_id,
                "attempt": report.attempt,
                "from_status": before,
                "to_status": after,
                "at": now,
                "worker": report.worker,
                "task_id": report.task_id,
                "detail": _storable(report.detail) if after in FINAL else None,
            }
            for before, after in steps
        ],
    )
    return Applied(steps, top_up(connection, state, now, worker) if state is not None else [])


def _storable(detail: str | None) -> str | None:
    """What PostgreSQL takes: no NUL, no half of a surrogate pair."""
    if not detail:
        return None
    return detail[:MAX_DETAIL].replace("\0", "?").encode("utf-8", "replace").decode()
