"""The task ledger's tables, and Celery's result tables where Celery has not made them yet.

The definitions are this version's for ever: they do not follow later changes of ``tables.py``.
"""

from __future__ import annotations

import logging
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

from cadasta.workertoolbox.errors import LedgerError
from cadasta.workertoolbox.sql.migrations.tolerant import try_change
from cadasta.workertoolbox.sql.tables import UTCDateTime

logger = logging.getLogger(__name__)

revision = "0001_tables"
down_revision = None
branch_labels = None
depends_on = None

#: Above this many rows an index on a table that others use takes too long to make unasked.
MANY_ROWS = 100_000

_text = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
_json = _text.with_variant(postgresql.JSON(), "postgresql")
_jsonb = _text.with_variant(postgresql.JSONB(), "postgresql")
_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData()
task = sa.Table(
    "celery_task",
    metadata,
    sa.Column("task_id", sa.String(155), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("queue", sa.String(255)),
    sa.Column("root_id", sa.String(155)),
    sa.Column("parent_id", sa.String(155)),
    sa.Column("group_id", sa.String(155)),
    sa.Column("args", _json),
    sa.Column("kwargs", _json),
    sa.Column("args_repr", _text),
    sa.Column("kwargs_repr", _text),
    sa.Column("args_truncated", sa.Boolean, nullable=False),
    sa.Column("eta", UTCDateTime),
    sa.Column("expires", UTCDateTime),
    sa.Column("retries", sa.Integer, nullable=False),
    sa.Column("replacements", sa.Integer, nullable=False),
    sa.Column("publications", sa.Integer, nullable=False),
    sa.Column("origin", sa.String(255)),
    sa.Column("priority", sa.Integer),
    sa.Column("time_limit", sa.Double),
    sa.Column("soft_time_limit", sa.Double),
    sa.Column("ignore_result", sa.Boolean, nullable=False),
    sa.Column("stamps", _json),
    sa.Column("headers", _jsonb),
    sa.Column("properties", _json),
    sa.Column("published_at", UTCDateTime, nullable=False),
    sa.Column("last_published_at", UTCDateTime, nullable=False),
    sa.Column("recorded_at", UTCDateTime, nullable=False),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)
undecodable = sa.Table(
    "celery_task_undecodable",
    metadata,
    sa.Column("id", _id, sa.Identity(), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("received_at", UTCDateTime, nullable=False, index=True),
    sa.Column("queue", sa.String(255)),
    sa.Column("routing_key", sa.String(255)),
    sa.Column("error", _text, nullable=False),
    sa.Column("content_type", sa.String(255)),
    sa.Column("content_encoding", sa.String(255)),
    sa.Column("headers", _text),
    sa.Column("properties", _text),
    sa.Column("body", sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")),
    sa.Column("body_size", sa.Integer, nullable=False),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)
taskmeta = sa.Table(
    "celery_taskmeta",
    metadata,
    sa.Column("id", sa.Integer, sa.Sequence("task_id_sequence"), primary_key=True),
    sa.Column("task_id", sa.String(155), unique=True),
    sa.Column("status", sa.String(50)),
    sa.Column("result", sa.LargeBinary),
    sa.Column("date_done", sa.DateTime, index=True),
    sa.Column("traceback", sa.Text),
    sa.Column("children", sa.LargeBinary),
    sa.Column("name", sa.String(155)),
    sa.Column("args", sa.LargeBinary),
    sa.Column("kwargs", sa.LargeBinary),
    sa.Column("worker", sa.String(155)),
    sa.Column("retries", sa.Integer),
    sa.Column("queue", sa.String(155)),
    sa.Column("stamps", sa.LargeBinary),
    sqlite_autoincrement=True,
)
tasksetmeta = sa.Table(
    "celery_tasksetmeta",
    metadata,
    sa.Column("id", sa.Integer, sa.Sequence("taskset_id_sequence"), primary_key=True),
    sa.Column("taskset_id", sa.String(155), unique=True),
    sa.Column("result", sa.LargeBinary),
    sa.Column("date_done", sa.DateTime, index=True),
    sqlite_autoincrement=True,
)


def _index(name: str, *columns: sa.Column[Any], where: Any = None, **options: Any) -> sa.Index:
    return sa.Index(name, *columns, postgresql_where=where, sqlite_where=where, **options)


_index("ix_celery_task_published_at", task.c.published_at)
_index("ix_celery_task_name", task.c.name, task.c.published_at)
_index("ix_celery_task_queue", task.c.queue, task.c.published_at)
_index("ix_celery_task_root_id", task.c.root_id, where=task.c.root_id != task.c.task_id)
_index("ix_celery_task_parent_id", task.c.parent_id, where=task.c.parent_id.is_not(None))
_index("ix_celery_task_group_id", task.c.group_id, where=task.c.group_id.is_not(None))
_index(
    "ix_celery_task_headers",
    task.c.headers,
    where=task.c.headers.is_not(None),
    postgresql_using="gin",
    postgresql_ops={"headers": "jsonb_path_ops"},
).ddl_if(dialect="postgresql")
_by_status = _index(
    "ix_celery_taskmeta_status",
    taskmeta.c.status,
    taskmeta.c.task_id,
    where=taskmeta.c.status != "SUCCESS",
)


def upgrade() -> None:
    connection = op.get_bind()
    found = sa.inspect(connection)
    if found.has_table("celery_task"):
        _check_is_ours(found)
    if found.has_table("celery_taskmeta"):
        _complete_results(connection, found)
    metadata.create_all(connection)


def _check_is_ours(found: sa.Inspector) -> None:
    names = {column["name"] for column in found.get_columns("celery_task")}
    missing = sorted(set(task.c.keys()) - names)
    if missing:
        raise LedgerError(
            f"The database has a table celery_task that is not the ledger's (it lacks "
            f"{', '.join(missing)}): rename it, or set LEDGER_URL to another database."
        )


def _complete_results(connection: sa.Connection, found: sa.Inspector) -> None:
    """Add what is missing to a table that Celery made: columns of extended results, our index."""
    names = {column["name"] for column in found.get_columns("celery_taskmeta")}
    for column in taskmeta.c:
        if column.name not in names:
            try_change(
                connection, op.add_column, "celery_taskmeta", sa.Column(column.name, column.type)
            )
    if any(index["name"] == _by_status.name for index in found.get_indexes("celery_taskmeta")):
        return
    rows = sa.select(taskmeta.c.id).limit(MANY_ROWS + 1).subquery()
    if (connection.scalar(sa.select(sa.func.count()).select_from(rows)) or 0) <= MANY_ROWS:
        try_change(connection, _by_status.create, connection)
    else:
        logger.warning(
            "celery_taskmeta is large: the index for the search by state is left to you: %s",
            str(sa.schema.CreateIndex(_by_status).compile(dialect=connection.dialect)),
        )


def downgrade() -> None:
    raise NotImplementedError("The ledger's tables are dropped by hand: they are the record.")
