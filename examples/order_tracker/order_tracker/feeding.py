"""The rule on the limit: which units may go out, decided inside the database.

Whatever changes the number of units in flight locks the one row of ``feed`` first
(:func:`lock_feed`) and ends with :func:`top_up` in the same transaction. So the changes come one
after the other, and after each of them in flight = min(limit, what is left).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from .statuses import IN_FLIGHT, PENDING, QUEUED
from .tables import feed, order_feedings, order_transitions, orders

#: Seconds after which a message that is still not marked as sent is sent again, since its publisher
#: died: so many, and so many more for each that may have been fed together.
UNSENT_AFTER = 5.0
UNSENT_AFTER_EACH = 0.05
#: Most units that one look at the stalled feeds again; the next look comes soon.
_SWEEP = 500
#: Units that one statement names; SQLite takes 32,766.
_CHUNK = 1000


@dataclass(frozen=True)
class Feed:
    """The row of ``feed``: whether units go out, how many at a time, and the patience (seconds)."""

    going: bool
    max_queue: int
    stall_timeout: float


@dataclass(frozen=True)
class Feeding:
    """A unit that has been given its place and whose message is to be published.

    Args:
        task_id: of the message to the leader.
        expires: from this moment on the unit counts as stalled and another message takes this
            one's place, so that no worker shall begin with this one.
    """

    task_id: str
    order_id: int
    attempt: int
    priority: int
    payload: dict[str, Any]
    expires: datetime


def lock_feed(connection: Connection) -> Feed:
    """Lock the row of ``feed`` until the transaction's end, and read it."""
    row = connection.execute(select(feed).where(feed.c.id == 1).with_for_update()).one()
    return Feed(row.going, row.max_queue, row.stall_timeout)


def in_flight(connection: Connection) -> int:
    """How many units are queued or processing."""
    query = select(func.count()).select_from(orders).where(orders.c.status.in_(IN_FLIGHT))
    return int(connection.execute(query).scalar_one())


def top_up(connection: Connection, state: Feed, now: datetime, worker: str) -> list[Feeding]:
    """Give each free place to the unit that is first in line.

    Args:
        connection: in a transaction that holds the lock of :func:`lock_feed`.
        state: what that returned.
        now: the time to note.
        worker: who does it, for the history.

    Returns:
        What is to be published once the transaction is committed.
    """
    if not state.going:
        return []
    free = state.max_queue - in_flight(connection)
    if free <= 0:
        return []
    query = (
        select(orders.c.id, orders.c.attempt, orders.c.priority, orders.c.payload)
        .where(orders.c.status == PENDING)
        .order_by(orders.c.priority.desc(), orders.c.id)
        .limit(free)
    )
    rows = connection.execute(query).all()
    if not rows:
        return []
    fed = _feed(connection, rows, state, now)
    units = [row.id for row in rows]
    for begin in range(0, len(units), _CHUNK):
        connection.execute(
            update(orders)
            .where(orders.c.id.in_(units[begin : begin + _CHUNK]))
            .values(status=QUEUED, moved_at=now, fed_at=now)
        )
    connection.execute(
        insert(order_transitions),
        [
            {
                "order_id": one.order_id,
                "attempt": one.attempt,
                "from_status": PENDING,
                "to_status": QUEUED,
                "at": now,
                "worker": worker,
                "task_id": one.task_id,
            }
            for one in fed
        ],
    )
    return fed


def is_sweep_due(connection: Connection, now: datetime) -> bool:
    """Whether :func:`sweep` has something to do; locks nothing."""
    state = connection.execute(select(feed)).one()
    unsent = select(order_feedings.c.task_id).where(_unsent(now, state.max_queue)).limit(1)
    if connection.execute(unsent).first():
        return True
    stalled = select(orders.c.id).where(_stalled(now, state.stall_timeout)).limit(1)
    if connection.execute(stalled).first():
        return True
    if not state.going or in_flight(connection) >= state.max_queue:
        return False
    pending = select(orders.c.id).where(orders.c.status == PENDING).limit(1)
    return connection.execute(pending).first() is not None


def sweep(connection: Connection, now: datetime, worker: str) -> list[Feeding]:
    """Collect what nobody else will publish.

    These are the messages whose publisher died between its commit and its publish, the units that
    have stalled, and those for places that are free.

    Args:
        connection: in a transaction that may write.
        now: the time to note.
        worker: who does it, for the history.

    Returns:
        What is to be published once the transaction is committed.
    """
    state = lock_feed(connection)
    found = _claim_unsent(connection, state, now)
    stalled = (
        select(orders.c.id, orders.c.attempt, orders.c.priority, orders.c.payload)
        .where(_stalled(now, state.stall_timeout))
        .order_by(orders.c.id)
        .limit(_SWEEP)
    )
    rows = connection.execute(stalled).all()
    if rows:
        units = [row.id for row in rows]
        connection.execute(update(orders).where(orders.c.id.in_(units)).values(fed_at=now))
        # What of them was never sent needs not be sent any more.
        connection.execute(
            update(order_feedings)
            .where(order_feedings.c.order_id.in_(units), order_feedings.c.sent_at.is_(None))
            .values(sent_at=now)
        )
        found += _feed(connection, rows, state, now)
    return found + top_up(connection, state, now, worker)


def mark_sent(connection: Connection, task_ids: list[str], now: datetime) -> None:
    """Note that the broker has these messages."""
    connection.execute(
        update(order_feedings).where(order_feedings.c.task_id.in_(task_ids)).values(sent_at=now)
    )


def mark_received(connection: Connection, task_id: str, leader: str, now: datetime) -> bool:
    """Note that a leader has taken a message; False if that was known."""
    query = (
        update(order_feedings)
        .where(order_feedings.c.task_id == task_id, order_feedings.c.received_at.is_(None))
        .values(
            received_at=now, leader=leader, sent_at=func.coalesce(order_feedings.c.sent_at, now)
        )
    )
    return bool(connection.execute(query).rowcount)


def _unsent(now: datetime, max_queue: int) -> Any:
    cutoff = now - timedelta(seconds=UNSENT_AFTER + UNSENT_AFTER_EACH * max_queue)
    return and_(order_feedings.c.sent_at.is_(None), order_feedings.c.fed_at < cutoff)


def _stalled(now: datetime, timeout: float) -> Any:
    cutoff = now - timedelta(seconds=timeout)
    return and_(
        orders.c.status.in_(IN_FLIGHT),
        orders.c.moved_at < cutoff,
        or_(orders.c.fed_at.is_(None), orders.c.fed_at < cutoff),
    )


def _claim_unsent(connection: Connection, state: Feed, now: datetime) -> list[Feeding]:
    query = (
        select(
            order_feedings.c.task_id,
            order_feedings.c.attempt.label("fed_attempt"),
            orders.c.id,
            orders.c.status,
            orders.c.attempt,
            orders.c.priority,
            orders.c.payload,
        )
        .join(orders, orders.c.id == order_feedings.c.order_id)
        .where(_unsent(now, state.max_queue))
        .order_by(order_feedings.c.fed_at)
        .limit(_SWEEP)
    )
    rows = connection.execute(query).all()
    wanted = [r for r in rows if r.status == QUEUED and r.attempt == r.fed_attempt]
    void = [row.task_id for row in rows if row not in wanted]
    if void:  # The unit has moved on without it.
        mark_sent(connection, void, now)
    if wanted:
        ids = [row.task_id for row in wanted]
        connection.execute(
            update(order_feedings).where(order_feedings.c.task_id.in_(ids)).values(fed_at=now)
        )
        units = [row.id for row in wanted]
        connection.execute(update(orders).where(orders.c.id.in_(units)).values(fed_at=now))
    return [_feeding(row.task_id, row, state, now) for row in wanted]


def _feed(connection: Connection, rows: Any, state: Feed, now: datetime) -> list[Feeding]:
    # A new id each time: a worker refuses for good the id of a message that came too late.
    fed = [_feeding(str(uuid.uuid4()), row, state, now) for row in rows]
    connection.execute(
        insert(order_feedings),
        [
            {
                "task_id": one.task_id,
                "order_id": one.order_id,
                "attempt": one.attempt,
                "fed_at": now,
            }
            for one in fed
        ],
    )
    return fed


def _feeding(task_id: str, row: Any, state: Feed, now: datetime) -> Feeding:
    expires = now + timedelta(seconds=state.stall_timeout)
    return Feeding(task_id, row.id, row.attempt, row.priority, row.payload, expires)
