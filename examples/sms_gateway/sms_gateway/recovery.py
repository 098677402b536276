"""Setting going again what waits in the database: safe at any time, since every step is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, or_, select, update

from . import ids
from .publishing import publish
from .runtime import database
from .schema import broadcast, inbound_message, outbound_message
from .store import now

#: How the reason of a message begins that was given up, not refused.
GIVEN_UP = "given up after "


def requeue(before: datetime, dry_run: bool = False) -> dict[str, int]:
    """Publish again the next step of all that was stored before a moment and is not at its end.

    Returns:
        How many of each kind. A step that was on a queue all the same runs once more, without
        effect.
    """
    with database().reading() as connection:
        texts = connection.execute(
            select(inbound_message.c.id, inbound_message.c.keyword, inbound_message.c.task_id)
            .where(inbound_message.c.handled_at.is_(None), inbound_message.c.received_at < before)
            .where(inbound_message.c.keyword.is_not(None))
        ).all()
        messages = connection.execute(
            select(outbound_message.c.message_id, outbound_message.c.attempts).where(
                outbound_message.c.state == "queued",
                outbound_message.c.queued_at < before,
                or_(
                    outbound_message.c.not_before.is_(None), outbound_message.c.not_before < before
                ),
            )
        ).all()
        broadcasts = connection.execute(
            select(broadcast.c.id, broadcast.c.queued_to).where(
                broadcast.c.queued_at.is_(None), broadcast.c.created_at < before
            )
        ).all()
    if not dry_run:
        for text in texts:
            publish(f"{text.keyword}.handle", [text.id], ids.keyword_id(text.task_id))
        for one in messages:
            publish("reply.send", [one.message_id, one.attempts], ids.send_id(one.message_id))
        for found in broadcasts:
            _publish_broadcast(found.id, found.queued_to)
    return {
        "texts without an answer": len(texts),
        "messages that wait to be sent": len(messages),
        "broadcasts that are not queued to the end": len(broadcasts),
    }


def _publish_broadcast(broadcast_id: str, queued_to: int) -> None:
    from .runtime import provider  # only a broadcast needs to know it

    args = [broadcast_id, provider().name, queued_to]
    publish("broadcast.queue", args, ids.chunk_id(broadcast_id, queued_to))


def resend(before: datetime, dry_run: bool = False) -> dict[str, int]:
    """Queue failed messages again that were given up because the provider took none.

    They keep their message ids, so that a provider that took one all the same knows it again.
    Nobody but an operator takes a state back.
    """
    given_up = (
        (outbound_message.c.state == "failed")
        & (outbound_message.c.ended_at < before)
        & outbound_message.c.error.startswith(GIVEN_UP)
    )
    with database().transaction() as connection:
        query = select(outbound_message.c.id, outbound_message.c.message_id).where(given_up)
        rows = connection.execute(query.with_for_update()).all()
        if not dry_run:
            values = {"state": "queued", "attempts": 0, "queued_at": now()}
            cleared = dict.fromkeys(("ended_at", "not_before", "error"))
            connection.execute(update(outbound_message).where(given_up).values(**values, **cleared))
    if not dry_run:
        for row in rows:
            publish("reply.send", [row.message_id, 0], ids.send_id(row.message_id))
    return {"messages that were given up": len(rows)}


def unsent(connection: Connection, before: datetime) -> list[Row[Any]]:
    """Messages that wait or have failed, counted by state and reason."""
    table = outbound_message
    count = func.count().label("count")
    query = (
        select(table.c.state, table.c.error, count, func.min(table.c.queued_at).label("oldest"))
        .where(table.c.state.in_(("queued", "failed")), table.c.queued_at < before)
        .group_by(table.c.state, table.c.error)
        .order_by(table.c.state, count.desc())
        .limit(50)
    )
    return list(connection.execute(query))
