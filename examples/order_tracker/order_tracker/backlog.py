"""Adding units to the backlog, and bringing failed ones back to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from .statuses import ERROR, PENDING
from .tables import order_transitions, orders

#: Rows a statement.
_CHUNK = 1000


@dataclass(frozen=True)
class NewUnit:
    """A unit to add: the higher its priority, the earlier; the payload is for the work."""

    priority: int = 0
    payload: dict[str, Any] = field(default_factory=dict)


def count_units(connection: Connection) -> int:
    """How many units there are."""
    return int(connection.execute(select(func.count()).select_from(orders)).scalar_one())


def add_units(
    connection: Connection, units: Iterable[NewUnit], now: datetime, worker: str
) -> list[int]:
    """Add units as pending; returns their ids, in the order given.

    Args:
        connection: in a transaction that may write; the caller locks and tops up the feed.
        units: the units.
        now: the time to note.
        worker: who adds them, for the history.
    """
    ids: list[int] = []
    remaining = iter(units)
    while chunk := list(islice(remaining, _CHUNK)):
        rows = [
            {
                "status": PENDING,
                "priority": unit.priority,
                "attempt": 1,
                "payload": unit.payload,
                "created_at": now,
                "moved_at": now,
            }
            for unit in chunk
        ]
        made = connection.execute(
            insert(orders).returning(orders.c.id, sort_by_parameter_order=True), rows
        )
        new = list(made.scalars())
        _note(connection, [(order_id, 1, None) for order_id in new], now, worker)
        ids += new
    return ids


def retry_unit(connection: Connection, order_id: int, now: datetime, worker: str) -> str | None:
    """Bring a unit in ``error`` back to ``pending`` for a further attempt.

    Args:
        connection: in a transaction that holds the feed's lock.
        order_id: the unit.
        now: the time to note.
        worker: who does it, for the history.

    Returns:
        The status in which the unit was found, None if there is no such unit. Only ``error``
        changes.
    """
    row = connection.execute(
        select(orders.c.status, orders.c.attempt).where(orders.c.id == order_id).with_for_update()
    ).one_or_none()
    if row is None:
        return None
    if row.status != ERROR:
        return str(row.status)
    attempt = row.attempt + 1
    connection.execute(
        update(orders)
        .where(orders.c.id == order_id)
        .values(status=PENDING, attempt=attempt, moved_at=now, fed_at=None)
    )
    _note(connection, [(order_id, attempt, ERROR)], now, worker)
    return ERROR


def _note(
    connection: Connection,
    units: Sequence[tuple[int, int, str | None]],
    now: datetime,
    worker: str,
) -> None:
    rows = [
        {
            "order_id": order_id,
            "attempt": attempt,
            "from_status": before,
            "to_status": PENDING,
            "at": now,
            "worker": worker,
        }
        for order_id, attempt, before in units
    ]
    if rows:
        connection.execute(insert(order_transitions), rows)
