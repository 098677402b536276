"""Inbound texts: each is stored once and answered once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from .. import ids
from ..database import insert_new
from ..providers import LONGEST_MESSAGES, Inbound
from ..schema import inbound_message, outbound_message, subscriber
from ..segments import measure, shorten
from ..texts import Text, parse_text
from . import now
from .subscribers import Moment, StoredSubscriber, subscriber_id

logger = logging.getLogger(__name__)

#: What answers a text: gives the reply, or None for no reply.
Handler = Callable[[Text, StoredSubscriber], "str | None"]


@dataclass(frozen=True)
class Stored:
    """An inbound text in the database."""

    id: int
    is_new: bool
    is_handled: bool


def store(connection: Connection, provider: str, text: Inbound, keyword: str | None) -> Stored:
    """Store a text, unless it is there already."""
    is_ours = (inbound_message.c.provider == provider) & (
        inbound_message.c.request_id == text.request_id
    )
    values = {
        "provider": provider,
        "request_id": text.request_id,
        "task_id": ids.text_id(provider, text.request_id),
        "subscriber_id": subscriber_id(connection, text.mobile_number),
        "shortcode": text.shortcode,
        "message": text.message,
        "keyword": keyword,
        "opt_out": text.opt_out,
        "sent_at": text.sent_at,
        "received_at": text.received_at,
        "posted": dict(text.posted),
    }
    is_new = insert_new(connection, inbound_message, values) == 1
    query = select(inbound_message.c.id, inbound_message.c.handled_at).where(is_ours)
    row = connection.execute(query).one()
    return Stored(row.id, is_new, row.handled_at is not None)


def answer(connection: Connection, inbound_id: int, handler: Handler) -> str | None:
    """Have a text answered, once, and queue its reply in the same transaction.

    Returns:
        The message id of a reply that nobody has tried to send yet, for the caller to publish;
        None where there is none. It is the same where the text was answered before: the process
        that answered it may have died before its publish.
    """
    query = (
        select(inbound_message, subscriber.c.mobile_number)
        .join(subscriber)
        .where(inbound_message.c.id == inbound_id)
        # The subscriber's texts one after the other: one of them may be STOP.
        .with_for_update(of=[inbound_message, subscriber], key_share=True)
    )
    row = connection.execute(query).one()
    if row.handled_at is None:
        moment = Moment(row.sent_at, row.received_at, inbound_id)
        who = StoredSubscriber(connection, row.subscriber_id, row.mobile_number, moment)
        names = [row.keyword] if row.keyword else ()
        reply = handler(parse_text(row.message, row.opt_out, names), who)
        if reply and who.is_overtaken():
            logger.info("Text %s gets no reply: a later one says otherwise", row.request_id)
        elif reply and (reply := sendable(reply, row.provider, _what(row))):
            values = {
                "message_id": ids.reply_message_id(row.task_id),
                "provider": row.provider,
                "inbound_id": inbound_id,
                "subscriber_id": row.subscriber_id,
                "shortcode": row.shortcode,
                "message": reply,
                "state": "queued",
                "queued_at": now(),
            }
            insert_new(connection, outbound_message, values)
        handled = update(inbound_message).where(inbound_message.c.id == inbound_id)
        connection.execute(handled.values(handled_at=now()))
    waiting = select(outbound_message.c.message_id).where(
        outbound_message.c.inbound_id == inbound_id,
        outbound_message.c.state == "queued",
        outbound_message.c.attempts == 0,
    )
    return connection.scalar(waiting)


def sendable(reply: str, provider: str, what: str) -> str:
    """A reply that the provider takes: without what no text can hold, and cut where it is too long.

    Args:
        reply: what a handler answered.
        provider: who is to send it.
        what: what it is, for the log, which tells of each change.
    """
    clean = reply.encode("utf-16", "surrogatepass").decode("utf-16", "ignore").replace("\0", "")
    if clean != reply:
        logger.error("The reply %s holds characters that are none; it goes without them", what)
    longest = LONGEST_MESSAGES[provider]
    if (size := measure(clean)).units > longest:
        text = "The reply %s takes %d units of %s; %s takes %d: it is cut"
        logger.error(text, what, size.units, size.encoding, provider, longest)
    return shorten(clean, longest) if clean.strip() else ""


def conversation(connection: Connection, provider: str, request_id: str) -> dict[str, Any] | None:
    """A text, its reply and the ids of their tasks, for people; None where it is unknown."""
    query = (
        select(inbound_message, subscriber.c.mobile_number)
        .join(subscriber)
        .where(
            inbound_message.c.provider == provider,
            inbound_message.c.request_id == request_id,
        )
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    tasks = {"message": row.task_id}
    if row.keyword:
        tasks[row.keyword] = ids.keyword_id(row.task_id)
    found = outbound_message.c.inbound_id == row.id
    sent = connection.execute(select(outbound_message).where(found)).one_or_none()
    reply: dict[str, Any] | None = None
    if sent is not None:
        tasks["reply"] = ids.send_id(sent.message_id)
        cost = sent.credits_cost
        reply = {
            "message_id": sent.message_id,
            "message": sent.message,
            "state": sent.state,
            "attempts": sent.attempts,
            "queued_at": _text(sent.queued_at),
            "sent_at": _text(sent.sent_at),
            "ended_at": _text(sent.ended_at),
            "provider_ref": sent.provider_ref,
            "credits_cost": None if cost is None else f"{cost.normalize():f}",
            "error": sent.error,
            "receipts": sent.receipts,
        }
    return {
        "request_id": row.request_id,
        "provider": row.provider,
        "inbound": {
            "mobile_number": row.mobile_number,
            "shortcode": row.shortcode,
            "message": row.message,
            "keyword": row.keyword,
            "sent_at": _text(row.sent_at),
            "received_at": _text(row.received_at),
            "handled_at": _text(row.handled_at),
            "posted": row.posted,
        },
        "reply": reply,
        "delivery_state": reply["state"] if reply else None,
        "task_ids": tasks,
    }


def _what(row: Any) -> str:
    return f"to text {row.request_id} of {row.keyword or 'no keyword'}"


def _text(moment: Any) -> str | None:
    return None if moment is None else moment.isoformat()
