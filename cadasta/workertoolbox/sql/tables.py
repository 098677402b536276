"""The ledger's tables and the result backend's, as SQLAlchemy sees them.

The tables are made by :mod:`.migrations`; a test keeps both alike.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine


class UTCDateTime(TypeDecorator[datetime]):
    """A moment: takes aware datetimes only and gives aware UTC ones, to the microsecond.

    PostgreSQL keeps ``timestamptz``, MySQL ``DATETIME(6)``, SQLite text of a fixed width, which
    sorts by time. A naive datetime is a ``ValueError``, since nobody can tell what it means.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: give one with a time zone, such as UTC")
        value = value.astimezone(timezone.utc)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc)
        return value.astimezone(timezone.utc)


metadata = MetaData()

#: Text of any length: MySQL's own TEXT ends at 64 KiB.
_long_text = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
#: JSON text, kept as written: unlike ``jsonb``, ``json`` takes ``\u0000`` and lone surrogates.
_json = _long_text.with_variant(postgresql.JSON(), "postgresql")
#: JSON that can be searched.
_searchable_json = _long_text.with_variant(postgresql.JSONB(), "postgresql")
_bytes = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
_counter = BigInteger().with_variant(Integer(), "sqlite")

# utf8mb4_bin below: MySQL compares text without regard to case unless told otherwise, and ids
# and names are exact.
task = Table(
    "celery_task",
    metadata,
    Column("task_id", String(155), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("queue", String(255)),
    Column("root_id", String(155)),
    Column("parent_id", String(155)),
    Column("group_id", String(155)),
    Column("args", _json),
    Column("kwargs", _json),
    Column("args_repr", _long_text),
    Column("kwargs_repr", _long_text),
    Column("args_truncated", Boolean, nullable=False),
    Column("eta", UTCDateTime),
    Column("expires", UTCDateTime),
    Column("retries", Integer, nullable=False),
    Column("replacements", Integer, nullable=False),
    # How many copies of its messages came, redelivered ones included.
    Column("publications", Integer, nullable=False),
    Column("origin", String(255)),
    Column("priority", Integer),
    Column("time_limit", Double),
    Column("soft_time_limit", Double),
    # Its result is not stored: nobody will ever know how it ended.
    Column("ignore_result", Boolean, nullable=False),
    Column("stamps", _json),
    Column("headers", _searchable_json),
    Column("properties", _json),
    # The first publication's time: it never moves forward, so that pages stay stable.
    Column("published_at", UTCDateTime, nullable=False),
    Column("last_published_at", UTCDateTime, nullable=False),
    Column("recorded_at", UTCDateTime, nullable=False),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)

# No id in these: every database sorts the few rows of one microsecond by itself, and shorter
# indexes make ingestion faster.
Index("ix_celery_task_published_at", task.c.published_at)
Index("ix_celery_task_name", task.c.name, task.c.published_at)
Index("ix_celery_task_queue", task.c.queue, task.c.published_at)


def _sparse_index(name: str, column: Column[Any], where: Any, **options: Any) -> None:
    # Most tasks are alone: an index over the others only is small and costs them nothing.
    Index(name, column, postgresql_where=where, sqlite_where=where, **options)


_sparse_index("ix_celery_task_root_id", task.c.root_id, task.c.root_id != task.c.task_id)
_sparse_index("ix_celery_task_parent_id", task.c.parent_id, task.c.parent_id.is_not(None))
_sparse_index("ix_celery_task_group_id", task.c.group_id, task.c.group_id.is_not(None))
Index(
    "ix_celery_task_headers",
    task.c.headers,
    postgresql_using="gin",
    postgresql_ops={"headers": "jsonb_path_ops"},
    postgresql_where=task.c.headers.is_not(None),
).ddl_if(dialect="postgresql")

undecodable = Table(
    "celery_task_undecodable",
    metadata,
    # An identity column: unlike ``bigserial`` it asks no right on a sequence of who inserts.
    Column("id", _counter, Identity(), primary_key=True),
    # SHA-256 of what came, in hexadecimal, so that a redelivery makes no second row.
    Column("digest", String(64), nullable=False, unique=True),
    Column("received_at", UTCDateTime, nullable=False, index=True),
    Column("queue", String(255)),
    Column("routing_key", String(255)),
    Column("error", _long_text, nullable=False),
    Column("content_type", String(255)),
    Column("content_encoding", String(255)),
    Column("headers", _long_text),
    Column("properties", _long_text),
    Column("body", _bytes),
    # The whole body's size in bytes, where ``body`` holds only its beginning.
    Column("body_size", Integer, nullable=False),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)

#: SQLAlchemy's DateTime, to the microsecond on MySQL too.
_moment = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")

# Below: Celery 5.7's own extended layout, so that its ``db+`` backend works on these tables; and
# two columns of ours at the end, which it does not see.
taskmeta = Table(
    "celery_taskmeta",
    metadata,
    Column("id", Integer, Sequence("task_id_sequence"), primary_key=True, autoincrement=True),
    Column("task_id", String(155), unique=True),
    Column("status", String(50)),
    Column("result", _bytes),
    Column("date_done", DateTime, index=True),
    Column("traceback", _long_text),
    Column("children", _bytes),
    Column("name", String(155)),
    Column("args", _bytes),
    Column("kwargs", _bytes),
    Column("worker", String(155)),
    Column("retries", Integer),
    Column("queue", String(155)),
    Column("stamps", _bytes),
    # The latest attempt's begin, in UTC as ``date_done``, and how many seconds it took.
    Column("date_started", _moment),
    Column("runtime", Double),
    sqlite_autoincrement=True,
)
# Ours, for the search by state: nearly every row ends as SUCCESS, which needs no index.
Index(
    "ix_celery_taskmeta_status",
    taskmeta.c.status,
    taskmeta.c.task_id,
    postgresql_where=taskmeta.c.status != "SUCCESS",
    sqlite_where=taskmeta.c.status != "SUCCESS",
)

tasksetmeta = Table(
    "celery_tasksetmeta",
    metadata,
    Column("id", Integer, Sequence("taskset_id_sequence"), primary_key=True, autoincrement=True),
    Column("taskset_id", String(155), unique=True),
    Column("result", _bytes),
    Column("date_done", DateTime, index=True),
    sqlite_autoincrement=True,
)

#: Attempts of a task that are kept one by one; all later ones share the last row.
MAX_ATTEMPTS = 100

# Of tasks that ran once ``celery_taskmeta`` tells everything: they have no row here.
attempt = Table(
    "celery_task_attempt",
    metadata,
    Column("task_id", String(155), primary_key=True),
    # The retries before it, at most MAX_ATTEMPTS.
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("retries", Integer, nullable=False),
    Column("state", String(50), nullable=False),
    Column("worker", String(155)),
    Column("started_at", UTCDateTime),
    Column("ended_at", UTCDateTime, nullable=False, index=True),
    Column("runtime", Double),
    # The exception's type and the beginning of its message.
    Column("error", _long_text),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)
