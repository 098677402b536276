"""``MQ_RECORD=1``: a row of each message, beside the ledger, in the table ``mq_message``.

Its columns are those of MQFN's table of messages. They are written in batches by a thread. An
acknowledgement waits for its row: a producer's for what was published, a consumer's for when.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from cadasta.workertoolbox.sql.engines import make_engine, writing

from .errors import SettingsError
from .retries import Backoff

logger = logging.getLogger(__name__)

#: Rows of one transaction, at most.
BATCH = 500
#: How many times 10 seconds it may take where the database answers others.
PATIENCE = 2.5

metadata = sa.MetaData()

message = sa.Table(
    "mq_message",
    metadata,
    #: The message's id, which is the task's id in the ledger.
    sa.Column("id", sa.String(155), primary_key=True),
    sa.Column("topic", sa.String(64), nullable=False),
    sa.Column("content", sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")),
    sa.Column("is_fetched", sa.Boolean, nullable=False),
    sa.Column("publish_timestamp", sa.DateTime(timezone=True), nullable=False),
    sa.Column("consumed_timestamp", sa.DateTime(timezone=True)),
    sa.Index("mq_message_topic", "topic", "publish_timestamp"),
    mysql_charset="utf8mb4",  # whatever the database has: a message may be any text
    mariadb_charset="utf8mb4",
)

_PUBLISHED = ("topic", "content", "publish_timestamp")
_CONSUMED = ("is_fetched", "consumed_timestamp")


def database_url(app: Any) -> str:
    """The ledger's database.

    Raises:
        SettingsError: the ledger is in none.
    """
    if app.conf.LEDGER_URL:
        return str(app.conf.LEDGER_URL)
    kind, plus, url = str(app.conf.result_backend).partition("+")
    if not plus or kind not in ("toolbox", "db"):
        raise SettingsError(
            "MQ_RECORD needs an SQL database: set CELERY_RESULT_BACKEND=toolbox+postgresql://... "
            "or CELERY_LEDGER_URL."
        )
    return url


@dataclass(slots=True)
class Entry:
    """What is to be written of one message."""

    id: str
    topic: str
    content: str
    is_consumed: bool
    #: Called in the thread, once, when it is in the database.
    done: Callable[[], None]
    at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def row(self) -> dict[str, Any]:
        """The row, as it is where there was none."""
        return {
            "id": self.id,
            "topic": self.topic,
            # PostgreSQL has no NUL in its texts; this is the picture of one.
            "content": self.content.replace("\0", "\N{SYMBOL FOR NULL}"),
            "is_fetched": self.is_consumed,
            "publish_timestamp": self.at,
            "consumed_timestamp": self.at if self.is_consumed else None,
        }


class Recorder:
    """Writes entries in their order; through outages of the database.

    Args:
        url: the database, as SQLAlchemy writes it.

    Raises:
        SettingsError: it is of a kind that this does not know.
    """

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)  # gives a database up that does not answer
        _upsert(self._engine.dialect.name, _PUBLISHED)
        self._entries: deque[Entry] = deque()
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._has_table = False
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End when all is written, or after ``timeout`` seconds."""
        self._stopping.set()
        self._woken.set()
        self._thread.join(timeout)
        if self._entries:
            logger.error("The database is away: %d rows are not written", len(self._entries))

    def add(
        self, message_id: str, topic: str, body: str, is_consumed: bool, done: Callable[[], None]
    ) -> None:
        """Note that a message was published, or consumed.

        Args:
            done: called, in the thread, once, when it is in the database.
        """
        self._entries.append(Entry(message_id, topic, body, is_consumed, done))
        self._woken.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.wait()
            self._woken.clear()
            self._write_all()
        self._engine.dispose()

    def _write_all(self) -> None:
        retry, size = Backoff(), BATCH
        while self._entries:
            batch = list(islice(self._entries, size))
            try:
                self._write(batch)
            except sa.exc.DataError as error:
                size = 1  # to find the one that the database never takes
                if len(batch) > 1:
                    continue
                logger.error("Message %s has no row: %s", batch[0].id, type(error).__name__)
            except sa.exc.SQLAlchemyError as error:
                wait = retry.next()
                kind = type(error).__name__
                logger.warning("The database is away (%s); next attempt in %.1f s", kind, wait)
                if self._stopping.wait(wait):
                    return
                continue
            else:
                size = BATCH
                retry.reset()
            for entry in batch:
                self._entries.popleft()
                entry.done()

    def _write(self, batch: list[Entry]) -> None:
        if not self._has_table:
            metadata.create_all(self._engine)
            self._has_table = True
        with writing(self._engine, PATIENCE) as connection:
            # Whichever comes first, the message or its acknowledgement, makes the row.
            for is_consumed, columns in ((False, _PUBLISHED), (True, _CONSUMED)):
                rows = [entry.row() for entry in batch if entry.is_consumed is is_consumed]
                if rows:
                    connection.execute(_upsert(self._engine.dialect.name, columns), rows)


def _upsert(dialect: str, columns: tuple[str, ...]) -> Any:
    """An insert that updates ``columns`` where the row is there.

    Raises:
        SettingsError: for this kind of database there is none.
    """
    if dialect in {"mysql", "mariadb"}:
        insert = mysql.insert(message)
        return insert.on_duplicate_key_update({name: insert.inserted[name] for name in columns})
    if dialect not in {"postgresql", "sqlite"}:
        raise SettingsError(f"MQ_RECORD works on PostgreSQL, MySQL and SQLite, not on {dialect}.")
    found: Any = (postgresql if dialect == "postgresql" else sqlite).insert(message)
    return found.on_conflict_do_update(
        index_elements=["id"], set_={name: found.excluded[name] for name in columns}
    )
