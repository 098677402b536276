"""Subscribers and their subscriptions.

Texts come in another order than they were sent: workers take them from a queue at once, a handler
that raises gets its text again, a provider posts again what we did not take. So the end of a
subscription is kept (``opt_out``) even where there was none to end, and whichever of two texts was
sent later wins, whenever it is handled.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, or_, select, update

from ..database import insert_new
from ..schema import inbound_message, opt_out, subscriber, subscription
from . import now

logger = logging.getLogger(__name__)

#: By how much the times that two texts took to come here may differ for the provider's clock to
#: tell which was later; and by how much it may be ahead of ours.
CLOCK_TOLERANCE = timedelta(days=3)
#: How many of a subscriber's latest opt-outs are looked at.
LATEST = 100


@dataclass(frozen=True)
class Moment:
    """When a subscriber said something."""

    #: By the provider's clock; None where it does not tell.
    sent_at: datetime | None
    received_at: datetime
    #: The text; 0 where there is none: the provider told, or an operator.
    inbound_id: int

    def ends(self, other: Moment) -> bool:
        """Whether a wish to end, said now, is later than what was said at another moment.

        Where the two took about as long to come here, the provider's clock tells. Where they did
        not, a clock was wrong, or one was posted days later: the end counts if anything speaks for
        it, since whoever says stop gets nothing more.
        """
        mine, others = (self.received_at, self.inbound_id), (other.received_at, other.inbound_id)
        is_later = mine > others
        sent, other_sent = self._believed(), other._believed()
        if sent is None or other_sent is None or sent == other_sent:
            return is_later
        delays = self.received_at - sent, other.received_at - other_sent
        if abs(delays[0] - delays[1]) <= CLOCK_TOLERANCE:
            return sent > other_sent
        return is_later or sent > other_sent

    def _believed(self) -> datetime | None:
        is_future = self.sent_at is not None and self.sent_at > self.received_at + CLOCK_TOLERANCE
        return None if is_future else self.sent_at


def subscriber_id(connection: Connection, mobile_number: str) -> int:
    """The id of the subscriber with this number, who is added where new."""
    query = select(subscriber.c.id).where(subscriber.c.mobile_number == mobile_number)
    found = connection.scalar(query)
    if found is None:
        values = {"mobile_number": mobile_number, "created_at": now()}
        insert_new(connection, subscriber, values)
        found = connection.scalar(query)
    if found is None:  # only where somebody deletes it at this very moment
        raise LookupError("the subscriber is gone")
    return int(found)


class StoredSubscriber:
    """A subscriber within the transaction that handles one of the subscriber's texts.

    Args:
        connection: the transaction.
        subscriber_id: who.
        mobile_number: in the form of E.164.
        moment: the text, and when it was said.
    """

    def __init__(
        self, connection: Connection, subscriber_id: int, mobile_number: str, moment: Moment
    ) -> None:
        self._connection = connection
        self._id = subscriber_id
        self._number = mobile_number
        self._moment = moment
        self._is_overtaken = False

    @property
    def mobile_number(self) -> str:
        """The number in the form of E.164."""
        return self._number

    def is_subscribed(self, word: str) -> bool:
        """Whether there is a subscription to this keyword now."""
        return is_subscribed(self._connection, self._id, word)

    def subscribe(self, word: str) -> bool:
        """Begin a subscription; False if there was one already.

        Where the subscriber has asked for its end since, it ends at once.
        """
        end = self._later_end(word)
        self._is_overtaken |= end is not None
        moment = now()
        values = {
            "subscriber_id": self._id,
            "keyword": word,
            "began_at": moment,
            "began_by": self._moment.inbound_id,
            "ended_at": moment if end else None,
            "ended_by": end.inbound_id if end else None,
            "ended_reason": end.reason if end else None,
        }
        return insert_new(self._connection, subscription, values) == 1

    def unsubscribe(self, word: str) -> bool:
        """End the subscription; False if there was none, or one that was begun by a later text."""
        return self._end(word) > 0

    def unsubscribe_all(self) -> int:
        """End every subscription that no later text began; return how many there were."""
        return self._end(None)

    def resubscribe(self) -> list[str]:
        """Begin again what the last STOP has ended; return the keywords subscribed to then."""
        query = (
            select(subscription, inbound_message.c.keyword.label("ending_keyword"))
            .outerjoin(inbound_message, inbound_message.c.id == subscription.c.ended_by)
            .where(subscription.c.subscriber_id == self._id)
            .order_by(subscription.c.id)
        )
        latest = {row.keyword: row for row in self._connection.execute(query)}
        stopped = [
            row
            for row in latest.values()
            if row.ended_at is not None
            and (row.ended_reason is not None or row.ending_keyword is None)
        ]
        last = max((row.ended_at for row in stopped), default=None)
        for row in stopped:
            if row.ended_at == last:
                self.subscribe(row.keyword)
        return sorted(word for word in latest if self.is_subscribed(word))

    def is_overtaken(self) -> bool:
        """Whether the subscriber has said otherwise after this text, which had to wait so long."""
        return self._is_overtaken or self._later_end(None) is not None

    def _later_end(self, word: str | None) -> Row[Any] | None:
        return later_end(self._connection, self._id, word, self._moment)

    def _end(self, word: str | None) -> int:
        note = {
            "subscriber_id": self._id,
            "keyword": word,
            "inbound_id": self._moment.inbound_id,
            "sent_at": self._moment.sent_at,
            "received_at": self._moment.received_at,
        }
        self._connection.execute(opt_out.insert().values(**note))
        current = select(
            subscription.c.id.label("subscription_id"),
            inbound_message.c.id,
            inbound_message.c.sent_at,
            inbound_message.c.received_at,
        ).join(inbound_message, inbound_message.c.id == subscription.c.began_by)
        current = current.where(_is_current(self._id))
        if word is not None:
            current = current.where(subscription.c.keyword == word)
        ended = []
        for row in self._connection.execute(current).all():
            if self._moment.ends(_moment(row, row.id)):
                ended.append(row.subscription_id)
            else:
                self._is_overtaken = True
        values = {"ended_at": now(), "ended_by": self._moment.inbound_id}
        query = update(subscription).where(subscription.c.id.in_(ended)).values(**values)
        return self._connection.execute(query).rowcount if ended else 0


def later_end(
    connection: Connection, subscriber_id: int, word: str | None, moment: Moment
) -> Row[Any] | None:
    """Who asked, after a moment, for the end of all subscriptions or of the one to a keyword."""
    query = (
        select(opt_out)
        .where(
            opt_out.c.subscriber_id == subscriber_id,
            or_(opt_out.c.keyword.is_(None), opt_out.c.keyword == word),
        )
        .order_by(opt_out.c.id.desc())
        .limit(LATEST)
    )
    for row in connection.execute(query):
        if _moment(row, row.inbound_id or 0).ends(moment):
            return row
    return None


def end_subscriptions(connection: Connection, subscriber_id: int, reason: str) -> int:
    """End every subscription of somebody who said so elsewhere; return how many there were.

    Args:
        connection: a transaction.
        subscriber_id: who.
        reason: the words of the provider, or of the operator.
    """
    which = subscriber.c.id == subscriber_id
    # One after the other with the subscriber's texts, as in inbound.answer.
    connection.execute(select(subscriber.c.id).where(which).with_for_update(key_share=True))
    moment = now()
    note = {"subscriber_id": subscriber_id, "received_at": moment, "reason": reason}
    connection.execute(opt_out.insert().values(**note))
    values = {"ended_at": moment, "ended_reason": reason}
    query = update(subscription).where(_is_current(subscriber_id)).values(**values)
    ended = connection.execute(query).rowcount
    logger.warning("Subscriber %d gets nothing more: %s", subscriber_id, reason)
    return ended


def is_subscribed(connection: Connection, subscriber_id: int, word: str) -> bool:
    """Whether a subscriber has a subscription to this keyword now."""
    query = select(subscription.c.id).where(
        _is_current(subscriber_id), subscription.c.keyword == word
    )
    return connection.scalar(query) is not None


def history(connection: Connection, mobile_number: str) -> list[Row[Any]]:
    """Each subscription that a number ever had, oldest first, with the texts behind it."""
    began, ended = inbound_message.alias("began"), inbound_message.alias("ended")
    query = (
        select(
            subscription.c.keyword,
            subscription.c.began_at,
            subscription.c.ended_at,
            subscription.c.ended_reason,
            began.c.message.label("began_message"),
            began.c.request_id.label("began_request_id"),
            began.c.posted.label("began_posted"),
            ended.c.message.label("ended_message"),
            ended.c.request_id.label("ended_request_id"),
            ended.c.posted.label("ended_posted"),
        )
        .join(subscriber, subscriber.c.id == subscription.c.subscriber_id)
        .join(began, began.c.id == subscription.c.began_by)
        .outerjoin(ended, ended.c.id == subscription.c.ended_by)
        .where(subscriber.c.mobile_number == mobile_number)
        .order_by(subscription.c.id)
    )
    return list(connection.execute(query))


def _is_current(subscriber_id: int) -> Any:
    return (subscription.c.subscriber_id == subscriber_id) & subscription.c.ended_at.is_(None)


def _moment(row: Any, inbound_id: int) -> Moment:
    return Moment(row.sent_at, row.received_at, inbound_id)
