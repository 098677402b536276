"""Broadcasts: who gets one, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from .. import ids
from ..database import insert_new
from ..schema import broadcast, outbound_message, subscription
from . import now


@dataclass(frozen=True)
class Chunk:
    """A part of a broadcast that was queued."""

    #: Those of its messages that nobody has tried to send yet.
    message_ids: list[str]
    #: The last subscription in it; None where it is the last chunk.
    next_after: int | None


def create(
    connection: Connection, broadcast_id: str, keyword: str, message: str, created_at: str
) -> bool:
    """Store a broadcast, unless it is there already; return whether it was new."""
    values = {
        "id": broadcast_id,
        "keyword": keyword,
        "message": message,
        "created_at": datetime.fromisoformat(created_at),
    }
    return insert_new(connection, broadcast, values) == 1


def is_same(connection: Connection, broadcast_id: str, keyword: str, message: str) -> bool:
    """Whether what is stored under an id is this broadcast."""
    row = _get(connection, broadcast_id)
    return bool(row.keyword == keyword and row.message == message)


def count_subscribers(connection: Connection, broadcast_id: str) -> int:
    """Note, at the first call, to how many subscribers a broadcast goes; return the number."""
    row = _get(connection, broadcast_id, lock=True)
    if row.total is not None:
        return int(row.total)
    total = connection.scalar(select(func.count()).where(*_recipients(row))) or 0
    connection.execute(update(broadcast).where(broadcast.c.id == broadcast_id).values(total=total))
    return total


def queue_chunk(
    connection: Connection, broadcast_id: str, provider: str, after: int, limit: int
) -> Chunk:
    """Queue a broadcast's messages for the next ``limit`` subscriptions after ``after``."""
    row = _get(connection, broadcast_id, lock=True)
    query = (
        select(subscription.c.id, subscription.c.subscriber_id)
        .where(*_recipients(row), subscription.c.id > after)
        .order_by(subscription.c.id)
        .limit(limit)
    )
    found = connection.execute(query).all()
    moment = now()
    values = [
        {
            "message_id": ids.broadcast_message_id(broadcast_id, one.subscriber_id),
            "provider": provider,
            "broadcast_id": broadcast_id,
            "subscriber_id": one.subscriber_id,
            "message": row.message,
            "state": "queued",
            "queued_at": moment,
        }
        for one in found
    ]
    for begin in range(0, len(values), 1000):  # databases bound the values of a statement
        insert_new(connection, outbound_message, values[begin : begin + 1000])
    last = found[-1].id if found else after
    is_last = len(found) < limit
    progress: dict[str, Any] = {"queued_to": max(last, row.queued_to)}
    if is_last and row.queued_at is None:
        progress["queued_at"] = moment
        count = select(func.count()).where(outbound_message.c.broadcast_id == broadcast_id)
        progress["total"] = connection.scalar(count)
    connection.execute(update(broadcast).where(broadcast.c.id == broadcast_id).values(**progress))
    upto = None if is_last else last
    return Chunk(_untried(connection, row, after, upto), upto)


def progress(connection: Connection, broadcast_id: str) -> dict[str, Any] | None:
    """How far a broadcast is, for people; None where it is unknown."""
    row = _get(connection, broadcast_id)
    if row is None:
        return None
    query = (
        select(outbound_message.c.state, func.count())
        .where(outbound_message.c.broadcast_id == broadcast_id)
        .group_by(outbound_message.c.state)
    )
    counts: dict[str, int] = {state: count for state, count in connection.execute(query)}
    known = {state: counts.get(state, 0) for state in ("sent", "delivered", "failed")}
    total = max(row.total or 0, sum(counts.values()))
    return {
        "id": row.id,
        "keyword": row.keyword,
        "message": row.message,
        "created_at": row.created_at.isoformat(),
        "queued_at": None if row.queued_at is None else row.queued_at.isoformat(),
        "total": total,
        **known,
        "pending": total - sum(known.values()),
    }


def _get(connection: Connection, broadcast_id: str, lock: bool = False) -> Row[Any] | Any:
    query = select(broadcast).where(broadcast.c.id == broadcast_id)
    return connection.execute(query.with_for_update() if lock else query).one_or_none()


def _recipients(row: Any) -> tuple[Any, ...]:
    return (
        subscription.c.keyword == row.keyword,
        subscription.c.ended_at.is_(None),
        subscription.c.began_at <= row.created_at,
    )


def _untried(connection: Connection, row: Any, after: int, upto: int | None) -> list[str]:
    # Also those who have unsubscribed since a first run: the sender finds that out, and says so.
    of_chunk = select(subscription.c.subscriber_id).where(
        subscription.c.keyword == row.keyword, subscription.c.id > after
    )
    if upto is not None:
        of_chunk = of_chunk.where(subscription.c.id <= upto)
    query = select(outbound_message.c.message_id).where(
        outbound_message.c.broadcast_id == row.id,
        outbound_message.c.state == "queued",
        outbound_message.c.attempts == 0,
        outbound_message.c.subscriber_id.in_(of_chunk),
    )
    return list(connection.scalars(query.order_by(outbound_message.c.id)))
