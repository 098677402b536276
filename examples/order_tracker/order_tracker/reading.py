"""Questions to the tables; nothing here changes anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select

from .statuses import FINAL, IN_FLIGHT, PENDING, QUEUED, STATUSES
from .tables import feed, order_feedings, order_transitions, orders

#: The newest transitions that a chart is made of.
_CHART_ROWS = 20_000
#: The newest transitions among which the last move is looked for: units that were added are none.
_MOVES = 20_000
#: The ids before the last one among which some may still be under way to their commit.
_OPEN_IDS = 200


@dataclass(frozen=True)
class Summary:
    """How the work stands."""

    counts: dict[str, int]
    limit: int
    going: bool
    #: When a unit last went from one status to another; None: none has, or not for long.
    moved_at: datetime | None = None

    @property
    def in_flight(self) -> int:
        return sum(self.counts[status] for status in IN_FLIGHT)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        return sum(self.counts[status] for status in FINAL)

    def to_dict(self) -> dict[str, Any]:
        """As the API answers it; the utilisation is in flight ÷ limit, 0 to 1."""
        return {
            "counts": self.counts,
            "total": self.total,
            "done": self.done,
            "in_flight": self.in_flight,
            "limit": self.limit,
            "utilisation": round(self.in_flight / self.limit, 4),
            "going": self.going,
        }


def summary(connection: Connection) -> Summary:
    """Count the units of each status; all from one moment."""
    query = select(orders.c.status, func.count()).group_by(orders.c.status)
    found = {status: int(number) for status, number in connection.execute(query)}
    state = connection.execute(select(feed)).one()
    counts = {status: found.get(status, 0) for status in STATUSES}
    newest = (
        select(order_transitions.c.at, order_transitions.c.from_status)
        .order_by(order_transitions.c.id.desc())
        .limit(_MOVES)
        .subquery()
    )
    moves = select(newest.c.at).where(newest.c.from_status.is_not(None)).limit(1)
    moved_at = connection.execute(moves).scalar_one_or_none()
    return Summary(counts, state.max_queue, state.going, moved_at)


def next_in_line(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """The pending units that go out next: first the highest priority, then the oldest."""
    query = (
        select(orders)
        .where(orders.c.status == PENDING)
        .order_by(orders.c.priority.desc(), orders.c.id)
        .limit(limit)
    )
    return [unit_dict(row) for row in connection.execute(query)]


def page(
    connection: Connection, status: str | None, limit: int, after: int
) -> tuple[list[dict[str, Any]], int | None]:
    """Units in the order of their ids, and what to give as ``after`` for the next page."""
    query = select(orders).where(orders.c.id > after).order_by(orders.c.id).limit(limit + 1)
    if status is not None:
        query = query.where(orders.c.status == status)
    rows = connection.execute(query).all()
    units = [unit_dict(row) for row in rows[:limit]]
    return units, units[-1]["id"] if len(rows) > limit else None


def latest(connection: Connection, status: str, limit: int) -> list[dict[str, Any]]:
    """The units of one status to show: pending ones as they go out, others newest first."""
    if status == PENDING:
        return next_in_line(connection, limit)
    query = (
        select(orders).where(orders.c.status == status).order_by(orders.c.id.desc()).limit(limit)
    )
    return [unit_dict(row) for row in connection.execute(query)]


def unit(connection: Connection, order_id: int) -> dict[str, Any] | None:
    """One unit with its history, its feedings and all its task ids; None if there is none."""
    row = connection.execute(select(orders).where(orders.c.id == order_id)).one_or_none()
    if row is None:
        return None
    history = transitions(connection, order_transitions.c.order_id == order_id)
    query = (
        select(order_feedings)
        .where(order_feedings.c.order_id == order_id)
        .order_by(order_feedings.c.fed_at)
    )
    fed = [_values(one) for one in connection.execute(query)]
    ids = [one["task_id"] for one in [*fed, *history] if one["task_id"]]
    return {
        **unit_dict(row),
        "history": history,
        "feedings": fed,
        "task_ids": list(dict.fromkeys(ids)),
    }


def transitions(connection: Connection, where: Any, limit: int = 1000) -> list[dict[str, Any]]:
    """Transitions that fit, in the order of their ids."""
    query = select(order_transitions).where(where).order_by(order_transitions.c.id).limit(limit)
    return [_values(row) for row in connection.execute(query)]


def transition_ids(connection: Connection) -> list[int]:
    """The last transitions' ids, ascending."""
    column = order_transitions.c.id
    query = select(column).order_by(column.desc()).limit(_OPEN_IDS)
    return sorted(connection.execute(query).scalars())


def utilisation(
    connection: Connection, now: datetime, seconds: int, points: int = 300
) -> list[tuple[float, int]]:
    """How many units were in flight in the last seconds, as (time in Unix seconds, number).

    It is reckoned backwards from what is in flight now, over the newest transitions.
    """
    query = (
        select(order_transitions.c.at, order_transitions.c.to_status)
        .where(
            order_transitions.c.at >= now - timedelta(seconds=seconds),
            order_transitions.c.to_status.in_((QUEUED, *FINAL)),
        )
        .order_by(order_transitions.c.id.desc())
        .limit(_CHART_ROWS)
    )
    rows = [(row.at.timestamp(), row.to_status) for row in connection.execute(query)]
    current = select(func.count()).select_from(orders).where(orders.c.status.in_(IN_FLIGHT))
    return _curve(rows, int(connection.execute(current).scalar_one()), now.timestamp(), points)


def _curve(
    rows: Sequence[tuple[float, str]], current: int, now: float, points: int
) -> list[tuple[float, int]]:
    curve = [(now, current)]
    for at, status in rows:  # newest first
        if at != curve[-1][0]:  # Of one transaction, only the outcome shows.
            curve.append((at, current))
        current += -1 if status == QUEUED else 1
    curve.reverse()
    step = max(1, len(curve) // points)
    thinned: Iterable[tuple[float, int]] = [*curve[:-1:step], curve[-1]]
    return [(round(at, 2), number) for at, number in thinned]


def unit_dict(row: Row[Any]) -> dict[str, Any]:
    """A unit as the API answers it."""
    return _values(row)


def _values(row: Row[Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row._mapping.items()
    }
