"""Subscribers and their subscriptions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, update

from ..database import insert_new
from ..schema import inbound_message, subscriber, subscription
from ..texts import parse_text
from . import now


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
    """A subscriber within the transaction that handles one of the subscriber's texts."""

    def __init__(
        self, connection: Connection, subscriber_id: int, mobile_number: str, inbound_id: int
    ) -> None:
        self._connection = connection
        self._id = subscriber_id
        self._number = mobile_number
        self._inbound_id = inbound_id

    @property
    def mobile_number(self) -> str:
        """The number in the form of E.164."""
        return self._number

    def is_subscribed(self, word: str) -> bool:
        """Whether there is a subscription to this keyword now."""
        return is_subscribed(self._connection, self._id, word)

    def subscribe(self, word: str) -> bool:
        """Begin a subscription; False if there was one already.

        Where the subscriber has texted STOP since, it ends at once.
        """
        stopped_by = self._stopped_by()
        moment = now()
        values = {
            "subscriber_id": self._id,
            "keyword": word,
            "began_at": moment,
            "began_by": self._inbound_id,
            "ended_at": moment if stopped_by else None,
            "ended_by": stopped_by,
        }
        return insert_new(self._connection, subscription, values) == 1

    def unsubscribe(self, word: str) -> bool:
        """End the subscription; False if there was none."""
        return self._end(subscription.c.keyword == word) > 0

    def unsubscribe_all(self) -> int:
        """End every subscription; return how many there were."""
        return self._end(True)

    def has_stopped(self) -> bool:
        """Whether the subscriber has texted STOP after this text, which had to wait so long."""
        return self._stopped_by() is not None

    def _stopped_by(self) -> int | None:
        later = select(inbound_message.c.id, inbound_message.c.message).where(
            inbound_message.c.subscriber_id == self._id,
            inbound_message.c.id > self._inbound_id,
            inbound_message.c.keyword.is_(None),
        )
        rows = self._connection.execute(later.order_by(inbound_message.c.id)).all()
        return next((row.id for row in rows if parse_text(row.message).is_stop), None)

    def _end(self, which: Any) -> int:
        current = (subscription.c.subscriber_id == self._id) & subscription.c.ended_at.is_(None)
        ended = {"ended_at": now(), "ended_by": self._inbound_id}
        query = update(subscription).where(current, which).values(**ended)
        return self._connection.execute(query).rowcount


def is_subscribed(connection: Connection, subscriber_id: int, word: str) -> bool:
    """Whether a subscriber has a subscription to this keyword now."""
    query = select(subscription.c.id).where(
        subscription.c.subscriber_id == subscriber_id,
        subscription.c.keyword == word,
        subscription.c.ended_at.is_(None),
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
