"""The tables. Times are aware, in UTC."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    event,
)

metadata = MetaData()

#: The states of an outbound message, each with its rank: a state never yields to one of a rank
#: that is not higher, so that a late SENT changes neither FAILED nor DELIVERED.
RANKS = {"queued": 0, "sent": 1, "delivered": 2, "failed": 2}


class UTCDateTime(TypeDecorator[datetime]):
    """An aware time in UTC; SQLite, which has no time zones, stores it without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(timezone.utc)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc)
        return value.astimezone(timezone.utc)


subscriber = Table(
    "subscriber",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("mobile_number", String(16), nullable=False, unique=True),
    Column("created_at", UTCDateTime, nullable=False),
)

#: One row for each time that somebody subscribed; an ended one stays, as the proof of its end.
subscription = Table(
    "subscription",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("subscriber_id", ForeignKey("subscriber.id"), nullable=False),
    Column("keyword", String(32), nullable=False),
    Column("began_at", UTCDateTime, nullable=False),
    Column("began_by", ForeignKey("inbound_message.id"), nullable=False),
    Column("ended_at", UTCDateTime),
    Column("ended_by", ForeignKey("inbound_message.id")),
    #: Why it ended, in the words of the provider or the operator, where no text to us ended it.
    Column("ended_reason", Text),
    Index("subscription_by_keyword", "keyword", "id"),
)
Index(
    "subscription_current",
    subscription.c.subscriber_id,
    subscription.c.keyword,
    unique=True,
    postgresql_where=subscription.c.ended_at.is_(None),
    sqlite_where=subscription.c.ended_at.is_(None),
)

inbound_message = Table(
    "inbound_message",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("provider", String(32), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("task_id", String(36), nullable=False),
    Column("subscriber_id", ForeignKey("subscriber.id"), nullable=False),
    Column("shortcode", String(32), nullable=False),
    Column("message", Text, nullable=False),
    Column("keyword", String(32)),
    #: What the provider took it for, and has answered: ``stop``, ``start`` or ``help``.
    Column("opt_out", String(8)),
    Column("sent_at", UTCDateTime),
    Column("received_at", UTCDateTime, nullable=False),
    #: When its answer was decided on; None: not yet.
    Column("handled_at", UTCDateTime),
    #: What the provider posted.
    Column("posted", JSON, nullable=False),
    UniqueConstraint("provider", "request_id"),
    Index("inbound_message_by_subscriber", "subscriber_id", "id"),
)
Index(
    "inbound_message_unhandled",
    inbound_message.c.received_at,
    postgresql_where=inbound_message.c.handled_at.is_(None),
    sqlite_where=inbound_message.c.handled_at.is_(None),
)

#: One row for each time that somebody asked to end subscriptions, also where there was none: a text
#: that was sent before, and comes later, does not begin one again.
opt_out = Table(
    "opt_out",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("subscriber_id", ForeignKey("subscriber.id"), nullable=False),
    #: Which subscription; None: all.
    Column("keyword", String(32)),
    #: The text that asked; None where the provider or an operator told.
    Column("inbound_id", ForeignKey("inbound_message.id")),
    Column("sent_at", UTCDateTime),
    Column("received_at", UTCDateTime, nullable=False),
    #: What they told.
    Column("reason", Text),
    Index("opt_out_by_subscriber", "subscriber_id", "id"),
)

#: One row: the version of the tables, which :mod:`.migrations` raises.
schema_version = Table("sms_schema_version", metadata, Column("version", Integer, primary_key=True))

broadcast = Table(
    "broadcast",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("keyword", String(32), nullable=False),
    Column("message", Text, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    #: Subscribers that it goes to; None until it was begun.
    Column("total", Integer),
    #: The last subscription that it was queued for.
    Column("queued_to", Integer, nullable=False, default=0),
    #: When the last of its messages was queued.
    Column("queued_at", UTCDateTime),
)

outbound_message = Table(
    "outbound_message",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("message_id", String(32), nullable=False, unique=True),
    Column("provider", String(32), nullable=False),
    Column("inbound_id", ForeignKey("inbound_message.id"), unique=True),
    Column("broadcast_id", ForeignKey("broadcast.id")),
    Column("subscriber_id", ForeignKey("subscriber.id"), nullable=False),
    Column("shortcode", String(32)),
    Column("message", Text, nullable=False),
    Column("state", String(16), nullable=False, default="queued"),
    Column("queued_at", UTCDateTime, nullable=False),
    #: How many attempts to send it were begun.
    Column("attempts", Integer, nullable=False, default=0),
    #: Until when the attempt that runs may take; None: none runs.
    Column("lease_until", UTCDateTime),
    Column("lease_token", String(32)),
    #: Not before this: the provider asked to wait.
    Column("not_before", UTCDateTime),
    #: Whether an attempt ended without anybody knowing whether the provider took it.
    Column("in_doubt", Boolean, nullable=False, default=False),
    #: When the first attempt was begun.
    Column("tried_at", UTCDateTime),
    Column("sent_at", UTCDateTime),
    #: When it became delivered or failed.
    Column("ended_at", UTCDateTime),
    #: What the provider calls it, where that is not the message id.
    Column("provider_ref", String(64)),
    Column("credits_cost", Numeric(10, 4)),
    #: Why it failed, or why it waits: the provider's words.
    Column("error", Text),
    #: The receipts that the provider posted, in the order of their arrival.
    Column("receipts", JSON, nullable=False, default=list),
    UniqueConstraint("broadcast_id", "subscriber_id"),
    Index("outbound_message_by_broadcast", "broadcast_id", "state"),
    Index("outbound_message_by_ref", "provider", "provider_ref"),
    Index("outbound_message_by_subscriber", "subscriber_id", "id"),
)
Index(
    "outbound_message_queued",
    outbound_message.c.queued_at,
    postgresql_where=outbound_message.c.state == "queued",
    sqlite_where=outbound_message.c.state == "queued",
)


@event.listens_for(metadata, "after_create")
def _upgrade(target: MetaData, connection: Connection, **_: Any) -> None:
    # Whoever makes the tables holds the lock under which an older version's are changed, too.
    from .migrations import upgrade  # it knows the tables

    upgrade(connection)
