"""Raising an older version's tables to this one's, in the transaction that makes the tables."""

from __future__ import annotations

import logging

from sqlalchemy import Column, Connection, func, inspect, or_, select, update
from sqlalchemy.schema import CreateColumn

from .keywords import asks_to_end, keywords
from .schema import inbound_message, schema_version, subscriber, subscription
from .settings import settings
from .store import now
from .store.subscribers import Moment, StoredSubscriber
from .texts import Text, normalise_number, parse_text

logger = logging.getLogger(__name__)

#: The version of the tables in :mod:`.schema`.
VERSION = 2
#: The columns that version 1 did not have.
_NEW_COLUMNS = (subscription.c.ended_reason, inbound_message.c.opt_out)


def upgrade(connection: Connection) -> None:
    """Raise the tables to :data:`VERSION`; does nothing where they are. Safe to run again."""
    if (connection.scalar(select(func.max(schema_version.c.version))) or 0) >= VERSION:
        return
    for column in _NEW_COLUMNS:
        _add(connection, column)
    end_strangers(connection, settings().region)
    hear_stops(connection)
    connection.execute(schema_version.delete())
    connection.execute(schema_version.insert().values(version=VERSION))


def _add(connection: Connection, column: Column[str]) -> None:
    table = column.table.name
    if column.name not in {found["name"] for found in inspect(connection).get_columns(table)}:
        clause = CreateColumn(column).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {clause}")


def end_strangers(connection: Connection, region: str) -> None:
    """End the subscriptions of numbers that version 1 read as another country's.

    What goes there goes to a stranger. Who texted subscribes again, by the right number.
    """
    query = (
        select(subscription.c.id, subscriber.c.mobile_number, inbound_message.c.posted)
        .select_from(subscription)
        .join(subscriber, subscriber.c.id == subscription.c.subscriber_id)
        .join(inbound_message, inbound_message.c.id == subscription.c.began_by)
        .where(subscription.c.ended_at.is_(None))
    )
    for row in connection.execute(query).all():
        posted = row.posted.get("mobile_number") or row.posted.get("From") or row.mobile_number
        try:
            if normalise_number(posted, region) == row.mobile_number:
                continue
        except ValueError:
            pass
        reason = f"an older version read the number {posted} as {row.mobile_number}"
        logger.warning("Subscription %d ended: %s", row.id, reason)
        values = {"ended_at": now(), "ended_reason": reason}
        connection.execute(update(subscription).where(subscription.c.id == row.id).values(**values))


def hear_stops(connection: Connection) -> None:
    """End the subscriptions of those whose STOP version 1 did not take for one.

    It knew STOP and UNSUBSCRIBE alone, and no ``bord off!``. Read are the texts of all who are
    subscribed, or have a text that waits, since that.
    """
    is_current = subscription.c.ended_at.is_(None)
    begun = select(subscription.c.subscriber_id, subscription.c.began_by).where(is_current)
    waiting = select(inbound_message.c.subscriber_id, inbound_message.c.id).where(
        inbound_message.c.handled_at.is_(None)
    )
    since = begun.union_all(waiting).subquery()
    first = (
        select(since.c.subscriber_id, func.min(since.c.began_by).label("id"))
        .group_by(since.c.subscriber_id)
        .subquery()
    )
    texts = (
        select(inbound_message, subscriber.c.mobile_number)
        .select_from(inbound_message)
        .join(subscriber, subscriber.c.id == inbound_message.c.subscriber_id)
        .join(first, first.c.subscriber_id == inbound_message.c.subscriber_id)
        .where(inbound_message.c.id > first.c.id)
        .where(or_(inbound_message.c.keyword.is_(None), inbound_message.c.handled_at.is_not(None)))
        .order_by(inbound_message.c.id.desc())
    )
    heard = 0
    came_back: dict[int, set[str]] = {}  # the keywords that a subscriber said ON to after that
    for row in connection.execute(texts).all():
        text, again = parse_text(row.message), came_back.setdefault(row.subscriber_id, set())
        if row.keyword is not None and text.parameter == "on":
            again.add(row.keyword)
        if not (text.is_stop if row.keyword is None else _is_end(row.keyword, text)):
            continue
        moment = Moment(row.sent_at, row.received_at, row.id)
        who = StoredSubscriber(connection, row.subscriber_id, row.mobile_number, moment)
        if row.keyword is None and not again:
            heard += who.unsubscribe_all()
        else:
            ended = set(keywords()) if row.keyword is None else {row.keyword}
            heard += sum(who.unsubscribe(word) for word in sorted(ended - again))
    if heard:
        logger.warning("%d subscriptions ended by texts that nobody took for STOP so far", heard)


def _is_end(word: str, text: Text) -> bool:
    keyword = keywords().get(word)
    if keyword is not None and asks_to_end(keyword, text):
        return True
    return text.parameter == "off" and text.message.lower().split()[1:2] != ["off"]
