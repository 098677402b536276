"""Batches of task records into the ledger: one statement, one transaction, any number of times.

A later publication replaces what the row says, but for the parent, which is that of the first one,
and for what the caller said once; any other adds to the count of publications. See
:mod:`.columns`.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Engine, case, tuple_
from sqlalchemy.exc import SQLAlchemyError

from ..messages.decoding import TaskRecord
from ..plain.backoff import Backoff
from ..plain.json_text import dump, harmless
from ..sql import dialects
from ..sql import tables as schema
from ..sql.dialects import Dialect
from ..sql.engines import writing
from ..sql.failures import brief, is_bad_data, is_conflict, ledger_error
from ..sql.upserts import Row, Upsert
from .columns import COLUMNS, FIELDS, KEPT, columns_of, merge
from .model import Undecodable

logger = logging.getLogger(__name__)

#: Characters of arguments in one statement: below MySQL's packet limit, and little memory.
MAX_STATEMENT = 4_000_000
#: How many times a transaction that gave way to another one is tried again, and after how long.
CONFLICTS = 3
FIRST_CONFLICT_WAIT, LONGEST_CONFLICT_WAIT = 0.1, 1.0
#: How many times the database's time-out a batch may take where the server answers others.
PATIENCE = 2.5
#: Bytes kept of a record that the database refuses; characters of a bad message's headers.
MAX_BODY = 65_536


#: What tells which of two publications is the later one.
_ORDER = ("replacements", "retries", "last_published_at")
#: What the latest publication says, and the others do not.
_LATEST = [name for name in FIELDS if name not in ("task_id", "parent_id", *KEPT)]


def _changes(dialect: Dialect, present: Row, new: Row) -> dict[str, ColumnElement[Any]]:
    is_later = tuple_(*(new[name] for name in _ORDER)) > tuple_(*(present[name] for name in _ORDER))
    is_first = new["published_at"] < present["published_at"]
    latest = {name: new[name] for name in (*_LATEST, "last_published_at")}
    latest |= {name: dialect.merged_json(present[name], new[name]) for name in KEPT}
    first = {name: new[name] for name in ("parent_id", "published_at")}
    return {
        **{name: case((is_later, value), else_=present[name]) for name, value in latest.items()},
        **{name: case((is_first, value), else_=present[name]) for name, value in first.items()},
        "publications": present["publications"] + new["publications"],
    }


def _upsert(dialect: Dialect) -> Upsert:
    return Upsert(
        table=schema.task,
        key=["task_id"],
        columns=COLUMNS,
        changes=partial(_changes, dialect),
        # The order of two publications backwards: so the comparison stays true while they change.
        decisive=("published_at", *reversed(_ORDER)),
    )


class _RollBack(Exception):
    """Ends a transaction without a trace."""


class Recorder:
    """Writes task records and undecodable messages with one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        dialect = dialects.of(engine)
        self._batch = dialect.batch(_upsert(dialect))
        self._undecodable = dialect.insert_missing(schema.undecodable, ["digest"])

    def record(self, records: Sequence[TaskRecord]) -> None:
        """Write ``records``; see :meth:`cadasta.workertoolbox.Ledger.record`."""
        for part in _parts(records):
            self._record(part)

    def _record(self, records: Sequence[TaskRecord]) -> None:
        try:
            self._persistently(lambda: self._upsert(records))
        except Exception as exc:
            if not is_bad_data(exc):
                if isinstance(exc, SQLAlchemyError):
                    raise ledger_error(exc, "record tasks in the ledger") from exc
                raise
            if len(records) == 1:
                self._probe()
                self._set_aside(records[0], exc)
                return
            # Halve it until the bad record is alone: the others are written as they should be.
            middle = len(records) // 2
            self._record(records[:middle])
            self._record(records[middle:])

    def _probe(self) -> None:
        """Raise :class:`LedgerError` if not even a blameless record can be written.

        Then the table is at fault (made by a newer version, say), not the data, and nothing
        may be set aside.
        """
        try:
            self._upsert([TaskRecord(task_id="workertoolbox-probe", name="probe")], keep=False)
        except SQLAlchemyError as exc:
            raise ledger_error(exc, "record any task in the ledger") from exc

    def _upsert(self, records: Sequence[TaskRecord], keep: bool = True) -> None:
        now = datetime.now(timezone.utc)
        columns = columns_of(merge(records, now), now)
        with suppress(_RollBack), writing(self._engine, PATIENCE) as connection:
            connection.exec_driver_sql(self._batch.statement, self._batch.parameters(columns))
            if not keep:
                raise _RollBack

    def record_undecodable(self, items: Sequence[Undecodable]) -> None:
        """Write ``items``, each once; see :class:`Ledger`."""
        if not items:
            return
        now = datetime.now(timezone.utc)
        rows = {row["digest"]: row for row in (_undecodable_row(item, now) for item in items)}
        ordered = sorted(rows.values(), key=itemgetter("digest"))

        def insert() -> None:
            with writing(self._engine, PATIENCE) as connection:
                connection.execute(self._undecodable, ordered)

        try:
            self._persistently(insert)
        except SQLAlchemyError as exc:
            raise ledger_error(exc, "record undecodable messages in the ledger") from exc

    def _persistently(self, write: Callable[[], None]) -> None:
        retry = Backoff(FIRST_CONFLICT_WAIT, LONGEST_CONFLICT_WAIT, factor=4)
        for _ in range(CONFLICTS):
            try:
                return write()
            except SQLAlchemyError as exc:
                if not is_conflict(exc):
                    raise
                # After a moment, so that the other one comes first this time.
                logger.info("The database chose this transaction to give way: writing it again")
                time.sleep(retry.next())
        write()

    def _set_aside(self, record: TaskRecord, exc: Exception) -> None:
        reason = brief(exc)
        logger.error("A task record cannot be stored and is set aside as it is: %s", reason)
        try:
            body = dump({name: getattr(record, name) for name in record.__slots__}).encode()
        except (RecursionError, ValueError):
            body = f"task_id={record.task_id!r} name={record.name!r}".encode("utf-8", "replace")
        self.record_undecodable(
            [
                Undecodable(
                    error=f"The task record cannot be stored: {reason}",
                    body=body[:MAX_BODY],
                    body_size=len(body),
                    queue=None if record.queue is None else str(record.queue),
                    content_type="application/json",
                    content_encoding="utf-8",
                    headers={"id": str(record.task_id), "task": str(record.name)},
                )
            ]
        )


def _parts(records: Sequence[TaskRecord]) -> list[Sequence[TaskRecord]]:
    """Cut a batch whose arguments are too much for one statement; nearly always one part."""
    sizes = [
        sum(
            len(text)
            for text in (record.args, record.kwargs, record.args_repr, record.kwargs_repr)
            if isinstance(text, str)
        )
        for record in records
    ]
    if sum(sizes) <= MAX_STATEMENT:
        return [records] if records else []
    parts: list[Sequence[TaskRecord]] = []
    start = size = 0
    for index, more in enumerate(sizes):
        if size + more > MAX_STATEMENT and index > start:
            parts.append(records[start:index])
            start, size = index, 0
        size += more
    return [*parts, records[start:]]


def _undecodable_row(item: Undecodable, now: datetime) -> dict[str, Any]:
    headers, properties = _any_text(item.headers), _any_text(item.properties)
    body = None if item.body is None else bytes(item.body)
    parts = [(headers or "").encode(), (properties or "").encode(), body or b""]
    digest = item.digest or hashlib.sha256(b"\0".join(parts)).hexdigest()
    row: dict[str, Any] = {
        "digest": digest[:64],
        "received_at": item.received_at or now,
        "headers": headers and headers[:MAX_BODY],
        "properties": properties and properties[:MAX_BODY],
        "body": body,
        "body_size": item.body_size or len(body or b""),
    }
    for name in ("queue", "routing_key", "error", "content_type", "content_encoding"):
        value = getattr(item, name)
        limit = getattr(schema.undecodable.c[name].type, "length", None) or MAX_BODY
        row[name] = None if value is None else harmless(str(value))[:limit]
    return row


def _any_text(value: Any) -> str | None:
    if not value:
        return None
    if isinstance(value, str):
        return harmless(value)
    try:
        return dump(value)
    except (RecursionError, ValueError):
        return f"<{type(value).__name__} that cannot be written as JSON>"
