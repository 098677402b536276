"""The tables. ``orders`` is what is so, ``order_transitions`` how it came."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

metadata = MetaData()

#: SQLite numbers the rows of an INTEGER key by itself, of no other.
_Key = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC, also where the database knows no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        return value if value is None else value.astimezone(timezone.utc)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        stamped: datetime = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return stamped.astimezone(timezone.utc)


#: One row a unit. ``attempt`` counts the retries from 1; reports of an earlier attempt are void.
#: ``moved_at``: when the status last changed. ``fed_at``: when it was last fed.
orders = Table(
    "orders",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("status", String(16), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("moved_at", UtcDateTime, nullable=False),
    Column("fed_at", UtcDateTime),
    Index("orders_by_status", "status", "id"),
    sqlite_autoincrement=True,
)
#: The line: first the highest priority, then the oldest. On SQLite it has the units of each status,
#: since SQLite does not choose an index of the pending ones alone.
Index(
    "orders_in_line",
    orders.c.status,
    orders.c.priority.desc(),
    orders.c.id,
    postgresql_where=text("status = 'pending'"),
)

#: One row a change of status. The constraint makes the database refuse a second row of one status
#: in one attempt, whatever the code does.
order_transitions = Table(
    "order_transitions",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("order_id", _Key, ForeignKey("orders.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("from_status", String(16)),
    Column("to_status", String(16), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("worker", String(255), nullable=False),
    Column("task_id", String(155)),
    Column("detail", Text),
    UniqueConstraint("order_id", "attempt", "to_status"),
    Index("order_transitions_by_time", "at"),
    sqlite_autoincrement=True,
)

#: One row a message to the outbox: it is written together with the transition that it belongs to,
#: and published after the commit. Where ``sent_at`` is missing, the publisher died in between.
#: ``received_at``, ``leader``: the leader's own report.
order_feedings = Table(
    "order_feedings",
    metadata,
    Column("task_id", String(36), primary_key=True),
    Column("order_id", _Key, ForeignKey("orders.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("fed_at", UtcDateTime, nullable=False),
    Column("sent_at", UtcDateTime),
    Column("received_at", UtcDateTime),
    Column("leader", String(255)),
)
Index(
    "order_feedings_unsent",
    order_feedings.c.fed_at,
    postgresql_where=text("sent_at IS NULL"),
    sqlite_where=text("sent_at IS NULL"),
)

#: One row in all. Whoever changes what is in flight locks it first; so the limit holds.
feed = Table(
    "feed",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("going", Boolean, nullable=False),
    Column("max_queue", Integer, nullable=False),
    Column("stall_timeout", Float, nullable=False),
)

#: The first answer to each ``Idempotency-Key``.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("answer", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
