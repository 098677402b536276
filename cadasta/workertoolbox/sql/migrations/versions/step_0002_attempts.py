"""When a task started and how long it ran, and each of its attempts.

The definitions are this version's for ever: they do not follow later changes of ``tables.py``.
"""

from __future__ import annotations

import logging

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from cadasta.workertoolbox.sql.migrations.tolerant import try_change
from cadasta.workertoolbox.sql.tables import UTCDateTime

logger = logging.getLogger(__name__)

revision = "0002_attempts"
down_revision = "0001_tables"
branch_labels = None
depends_on = None

#: Above this many rows MySQL would copy a table for too long to do it unasked.
MANY_ROWS = 100_000

_text = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
_moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
#: MySQL's BLOB and TEXT, which Celery makes, end at 64 KiB: larger results would be refused.
_WIDER = {
    "celery_taskmeta": (
        "MODIFY result LONGBLOB, MODIFY traceback MEDIUMTEXT, MODIFY children LONGBLOB,"
        " MODIFY args LONGBLOB, MODIFY kwargs LONGBLOB, MODIFY stamps LONGBLOB"
    ),
    "celery_tasksetmeta": "MODIFY result LONGBLOB",
}

metadata = sa.MetaData()
attempt = sa.Table(
    "celery_task_attempt",
    metadata,
    sa.Column("task_id", sa.String(155), primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("retries", sa.Integer, nullable=False),
    sa.Column("state", sa.String(50), nullable=False),
    sa.Column("worker", sa.String(155)),
    sa.Column("started_at", UTCDateTime),
    sa.Column("ended_at", UTCDateTime, nullable=False, index=True),
    sa.Column("runtime", sa.Double),
    sa.Column("error", _text),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)


def upgrade() -> None:
    connection = op.get_bind()
    names = {column["name"] for column in sa.inspect(connection).get_columns("celery_taskmeta")}
    for column in (sa.Column("date_started", _moment), sa.Column("runtime", sa.Double)):
        if column.name not in names:
            try_change(connection, op.add_column, "celery_taskmeta", column)
    if connection.dialect.name in ("mysql", "mariadb"):
        for table, changes in _WIDER.items():
            _widen(connection, f"ALTER TABLE {table} {changes}", table)
    metadata.create_all(connection)


def _widen(connection: sa.Connection, statement: str, table: str) -> None:
    rows = sa.select(sa.literal(1)).select_from(sa.table(table)).limit(MANY_ROWS + 1).subquery()
    if (connection.scalar(sa.select(sa.func.count()).select_from(rows)) or 0) <= MANY_ROWS:
        try_change(connection, connection.execute, sa.text(statement))
    else:
        logger.warning("%s is large: its wider columns are left to you: %s", table, statement)


def downgrade() -> None:
    raise NotImplementedError("The ledger's tables are dropped by hand: they are the record.")
