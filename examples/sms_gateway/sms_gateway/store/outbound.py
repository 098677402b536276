"""Outbound messages: who may send one now, and what came of it.

How a message is sent once, whatever dies:

- A task to send carries the number of attempts that were begun before it. Beginning an attempt
  (:func:`claim`) adds one, so of two tasks with the same number one begins it.
- An attempt has a lease, which ends some seconds after the provider's answer is given up. While it
  lasts nobody else begins one: the sender may live although the broker believes it dead. After it,
  anyone may, since the sender has died.
- A failed attempt publishes its successor first and gives the lease back after that
  (:func:`release`). So a queued message without a lease always has a task with its number of
  attempts, and a task with a smaller number is of no use any more: it is a repetition.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, case, func, select, update

from ..providers import Outbound, Receipt
from ..schema import RANKS, broadcast, inbound_message, outbound_message, subscriber
from . import now
from .subscribers import Moment, end_subscriptions, is_subscribed, later_end

_table = outbound_message


@dataclass(frozen=True)
class Claim:
    """The right to send a message until the lease ends."""

    message: Outbound
    subscriber_id: int
    token: str
    #: How many attempts were begun, this one included.
    attempts: int
    #: Whether an earlier attempt may have reached the provider.
    in_doubt: bool
    #: When the first attempt was begun.
    tried_at: datetime


@dataclass(frozen=True)
class Wait:
    """Not now: come back in so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Nothing:
    """There is nothing to do, and why."""

    reason: str


def claim(
    connection: Connection, message_id: str, attempts: int, lease: float
) -> Claim | Wait | Nothing:
    """Ask for the right to send a message.

    Args:
        message_id: which one.
        attempts: how many attempts were begun before the asking task was published.
        lease: seconds for which nobody else gets the right.
    """
    moment = now()
    query = (
        select(
            _table,
            subscriber.c.mobile_number,
            inbound_message.c.request_id,
            inbound_message.c.sent_at.label("inbound_sent_at"),
            inbound_message.c.received_at.label("inbound_received_at"),
            broadcast.c.keyword.label("broadcast_keyword"),
        )
        .select_from(_table)
        .join(subscriber)
        .outerjoin(inbound_message, inbound_message.c.id == _table.c.inbound_id)
        .outerjoin(broadcast, broadcast.c.id == _table.c.broadcast_id)
        .where(_table.c.message_id == message_id)
        .with_for_update(of=_table)
    )
    row = connection.execute(query).one()
    if row.state != "queued":
        return Nothing(row.state)
    if row.lease_until is None:
        if row.attempts > attempts:
            return Nothing("repeated")
        if row.not_before is not None and row.not_before > moment:
            return Wait((row.not_before - moment).total_seconds())
    elif row.lease_until > moment:
        return Wait((row.lease_until - moment).total_seconds())
    is_ours = _table.c.message_id == message_id
    if not _is_wanted(connection, row):
        words = "unsubscribed before it was sent"
        if row.in_doubt:
            words = "unsubscribed; an attempt before that may have been sent"
        failed = {"state": "failed", "error": words}
        query_failed = update(_table).where(is_ours)
        connection.execute(query_failed.values(**failed, ended_at=moment, lease_until=None))
        return Nothing("unsubscribed")
    token = uuid.uuid4().hex
    values = {
        "attempts": row.attempts + 1,
        "lease_until": moment + timedelta(seconds=lease),
        "lease_token": token,
        "not_before": None,
        "in_doubt": True,  # until it is known: this process may be killed
        "tried_at": row.tried_at or moment,
    }
    connection.execute(update(_table).where(is_ours).values(**values))
    message = Outbound(
        message_id=row.message_id,
        mobile_number=row.mobile_number,
        shortcode=row.shortcode,
        message=row.message,
        request_id=row.request_id,
    )
    tried_at = row.tried_at or moment
    return Claim(message, row.subscriber_id, token, row.attempts + 1, row.in_doubt, tried_at)


def _is_wanted(connection: Connection, row: Any) -> bool:
    # A broadcast is, by who is subscribed; a reply, by who has not texted STOP since the question.
    if row.broadcast_keyword is not None:
        return is_subscribed(connection, row.subscriber_id, row.broadcast_keyword)
    if row.inbound_id is None:
        return True
    asked = Moment(row.inbound_sent_at, row.inbound_received_at, row.inbound_id)
    return later_end(connection, row.subscriber_id, None, asked) is None


def settle_sent(connection: Connection, claim: Claim, provider_ref: str | None) -> None:
    """Note that the provider took a message. A receipt may have come before."""
    is_queued = _table.c.state == "queued"
    query = (
        update(_table)
        .where(_table.c.message_id == claim.message.message_id)
        .values(
            state=case((is_queued, "sent"), else_=_table.c.state),
            error=case((is_queued, None), else_=_table.c.error),
            sent_at=func.coalesce(_table.c.sent_at, now()),
            provider_ref=func.coalesce(_table.c.provider_ref, provider_ref),
            lease_until=None,
            in_doubt=False,
        )
    )
    connection.execute(query)


def settle_failed(connection: Connection, claim: Claim, words: str) -> None:
    """Note that a message will not be sent, and why."""
    values = {"state": "failed", "error": words, "ended_at": now(), "lease_until": None}
    connection.execute(_held(claim).where(_table.c.state == "queued").values(**values))


def release(
    connection: Connection, claim: Claim, words: str, *, in_doubt: bool, not_before: datetime
) -> None:
    """Give the lease back after an attempt that failed for now; its successor is published."""
    values = {
        "error": words,
        "lease_until": None,
        "in_doubt": in_doubt or claim.in_doubt,
        "not_before": not_before,
    }
    connection.execute(_held(claim).values(**values))


def _held(claim: Claim) -> Any:
    return update(_table).where(
        _table.c.message_id == claim.message.message_id, _table.c.lease_token == claim.token
    )


def known_refs(connection: Connection, provider: str, mobile_number: str) -> set[str]:
    """What a provider calls the messages to this number that are known to be sent."""
    query = (
        select(_table.c.provider_ref)
        .join(subscriber)
        .where(
            _table.c.provider == provider,
            subscriber.c.mobile_number == mobile_number,
            _table.c.provider_ref.is_not(None),
        )
    )
    return set(connection.scalars(query))


def apply_receipt(connection: Connection, provider: str, receipt: Receipt) -> str | None:
    """Note what the provider says of a message; return its state then, None where it is unknown.

    A receipt is kept, once, also where it comes too late to change the state.
    """
    which = (
        _table.c.message_id == receipt.message_id
        if receipt.message_id
        else _table.c.provider_ref == receipt.provider_ref
    )
    query = select(_table).where(_table.c.provider == provider, which).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    posted = dict(receipt.posted)
    values: dict[str, Any] = {}
    if posted not in row.receipts:
        values["receipts"] = [*row.receipts, posted]
        if receipt.is_opted_out:
            end_subscriptions(connection, row.subscriber_id, receipt.error or "opted out")
    if receipt.provider_ref and row.provider_ref is None:
        values["provider_ref"] = receipt.provider_ref
    if receipt.credits_cost is not None:
        values["credits_cost"] = receipt.credits_cost
    state = row.state
    if RANKS[receipt.state] > RANKS[state]:
        state = receipt.state
        values.update(state=state, in_doubt=False, lease_until=None)
        if row.sent_at is None and state != "failed":
            values["sent_at"] = receipt.at
        values["error"] = receipt.error
        if RANKS[state] == 2:
            values["ended_at"] = receipt.at
    if values:
        connection.execute(update(_table).where(_table.c.id == row.id).values(**values))
    return str(state)
