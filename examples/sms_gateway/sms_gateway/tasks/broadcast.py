"""The queue ``broadcast``: a text for every subscriber of a keyword, queued in chunks."""

from __future__ import annotations

from typing import Any

from .. import ids
from ..celery import app
from ..publishing import publish_next
from ..runtime import database
from ..settings import settings
from ..store import broadcasts
from .base import Step
from .reply import publish_reply


@app.task(base=Step, name="broadcast.start")
def start(
    broadcast_id: str, provider: str, keyword: str, message: str, created_at: str
) -> dict[str, Any]:
    """Begin a broadcast. Its task id is the broadcast's own.

    Args:
        broadcast_id: which one.
        provider: who sends it.
        keyword: whose subscribers get it.
        message: its text.
        created_at: when it was asked for; later subscribers do not get it.
    """
    with database().transaction() as connection:
        broadcasts.create(connection, broadcast_id, keyword, message, created_at)
        total = broadcasts.count_subscribers(connection, broadcast_id)
    publish_chunk(broadcast_id, provider, 0)
    return {"broadcast_id": broadcast_id, "total": total}


@app.task(base=Step, name="broadcast.queue")
def queue(broadcast_id: str, provider: str, after: int) -> dict[str, Any]:
    """Queue the texts for the subscriptions after ``after``, some hundred, and the next chunk."""
    with database().transaction() as connection:
        chunk = broadcasts.queue_chunk(
            connection, broadcast_id, provider, after, settings().broadcast_chunk
        )
    # The next chunk comes first: it is short, and another worker can begin it meanwhile.
    if chunk.next_after is not None:
        publish_chunk(broadcast_id, provider, chunk.next_after)
    for message_id in chunk.message_ids:
        publish_reply(message_id)
    return {"broadcast_id": broadcast_id, "queued": len(chunk.message_ids)}


def publish_chunk(broadcast_id: str, provider: str, after: int) -> None:
    """Put the chunk after a subscription on the queue ``broadcast``."""
    args = [broadcast_id, provider, after]
    publish_next("broadcast.queue", args, ids.chunk_id(broadcast_id, after))
