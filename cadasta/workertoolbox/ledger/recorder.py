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
from operator import itemgetter
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from ..messages.decoding import TaskRecord
from ..plain.backoff import Backoff
from ..plain.json_text import dump, harmless
from ..sql import tables as schema
from ..sql.engines import writing
from ..sql.failures import brief, is_bad_data, is_conflict, ledger_error
from .columns import COLUMNS, FIELDS, KEPT, Values, columns_of, merge
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


#: The expression for one JSON object with what a second one says besides, or instead; either may
#: be NULL. Takes the names of both, and the column's.
Merging = Callable[[str, str, str], str]


def _assignments(new: str, old: str, least: str, merged: Merging) -> str:
    """Return the SET clause of the upsert; ``new`` has the place of the name as ``{}``."""
    order = ("replacements", "retries", "last_published_at")
    is_later = "({}) > ({})".format(
        ", ".join(new.format(name) for name in order), ", ".join(old + name for name in order)
    )
    apart = ("task_id", "parent_id", *KEPT, *order)
    descriptive = [name for name in FIELDS if name not in apart]
    # MySQL assigns one after the other and sees what it assigned: the columns of the order come
    # last and backwards, which leaves the comparison true as long as it is needed.
    parts = []
    for name in KEPT:
        both = merged(f"{old}{name}", new.format(name), name)
        parts.append(f"{name} = CASE WHEN {is_later} THEN {both} ELSE {old}{name} END")
    parts += [
        f"{name} = CASE WHEN {is_later} THEN {new.format(name)} ELSE {old}{name} END"
        for name in (*descriptive, *reversed(order))
    ]
    is_first = f"{new.format('published_at')} < {old}published_at"
    parent = f"CASE WHEN {is_first} THEN {new.format('parent_id')} ELSE {old}parent_id END"
    parts.append(f"parent_id = {parent}")
    first = f"{old}published_at, {new.format('published_at')}"
    parts.append(f"published_at = {least}({first})")
    parts.append(f"publications = {old}publications + {new.format('publications')}")
    return ", ".join(parts)


def _postgresql_merged(first: str, second: str, name: str) -> str:
    # Of the columns the headers alone are ``jsonb``. ``||`` gives NULL where either is.
    kind = "jsonb" if name == "headers" else "json"
    both = f"({first}::jsonb || {second}::jsonb)::{kind}"
    return f"COALESCE({both}, {second}, {first})"


def _sqlite_merged(first: str, second: str, name: str) -> str:
    return f"workertoolbox_merged({first}, {second})"


def _mysql_merged(first: str, second: str, name: str) -> str:
    """Its own two functions merge nested objects too and drop NULL, or make lists of two values.

    So the one takes out of the first object what the second has, by a NULL for each name, and the
    other adds the second. MariaDB 10.11 misses some names with an escape: then the second is all.
    """
    names = f"JSON_KEYS({second})"
    inner = f"SUBSTR({names}, 2, CHAR_LENGTH({names}) - 2)"
    nulls = f"""CONCAT('{{', REPLACE({inner}, '", "', '":null,"'), ':null}}')"""
    both = f"JSON_MERGE_PRESERVE(JSON_MERGE_PATCH({first}, {nulls}), {second})"
    has_escape = f"INSTR(CONCAT(JSON_KEYS({first}), {names}), CHAR(92)) > 0"
    return f"COALESCE(CASE WHEN {has_escape} THEN NULL ELSE {both} END, {second}, {first})"


_INTO = f"INSERT INTO celery_task ({', '.join(COLUMNS)})"


def _postgresql_statement(engine: Engine) -> str:
    arrays = ", ".join(
        f"%s::{schema.task.c[name].type.compile(engine.dialect)}[]" for name in COLUMNS
    )
    # Nothing but names of columns and types is put into this text.
    return (
        f"{_INTO} SELECT * FROM unnest({arrays}) ON CONFLICT (task_id) DO UPDATE SET "  # noqa: S608
        + _assignments("excluded.{}", "celery_task.", "LEAST", _postgresql_merged)
    )


def _array(column: Values) -> str:
    """Return a column as the text of a PostgreSQL array."""
    if column.count(None) == len(column):
        return "{}"  # unnest() fills it up with NULL
    first = next(value for value in column if value is not None)
    if not isinstance(first, str):
        return "{" + ",".join(["NULL" if v is None else f'"{v}"' for v in column]) + "}"
    if None not in column:
        text = '","'.join(column)
        # Only the separators have quotes: nothing to escape, as for most columns.
        if "\\" not in text and text.count('"') == 2 * (len(column) - 1):
            return f'{{"{text}"}}'
    return "{" + ",".join([_quoted(value) for value in column]) + "}"


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _sqlite_statement(engine: Engine) -> str:
    return (
        f"{_INTO} VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT (task_id) DO UPDATE SET "
        + _assignments("excluded.{}", "celery_task.", "MIN", _sqlite_merged)
    )


def _mysql_statement(engine: Engine) -> str:
    return (
        f"{_INTO} VALUES ({', '.join(['%s'] * len(COLUMNS))}) ON DUPLICATE KEY UPDATE "
        + _assignments("VALUES({})", "", "LEAST", _mysql_merged)
    )


_TIMES = frozenset(("eta", "expires", "published_at", "last_published_at", "recorded_at"))
_IS_TIME = tuple(name in _TIMES for name in COLUMNS)


def _rows(columns: list[Values]) -> list[tuple[Any, ...]]:
    """Return rows for ``executemany``, with times as text, as that type."""
    texts = [
        [v and v.isoformat(" ", "microseconds")[:26] for v in column] if is_time else column
        for column, is_time in zip(columns, _IS_TIME, strict=True)
    ]
    return list(zip(*texts, strict=True))


_STATEMENTS: dict[str, Callable[[Engine], str]] = {
    "postgresql": _postgresql_statement,
    "sqlite": _sqlite_statement,
    "mysql": _mysql_statement,
    "mariadb": _mysql_statement,
}


class _RollBack(Exception):
    """Ends a transaction without a trace."""


class Recorder:
    """Writes task records and undecodable messages with one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._dialect = engine.dialect.name
        self._statement = _STATEMENTS[self._dialect](engine)

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
            if self._dialect == "postgresql":
                arrays = tuple([_array(column) for column in columns])
                connection.exec_driver_sql(self._statement, arrays)
            else:
                connection.exec_driver_sql(self._statement, _rows(columns))
            if not keep:
                raise _RollBack

    def record_undecodable(self, items: Sequence[Undecodable]) -> None:
        """Write ``items``, each once; see :class:`Ledger`."""
        if not items:
            return
        now = datetime.now(timezone.utc)
        rows = {row["digest"]: row for row in (_undecodable_row(item, now) for item in items)}
        ordered = sorted(rows.values(), key=itemgetter("digest"))
        table = schema.undecodable
        statement: Any
        if self._dialect == "postgresql":
            statement = postgresql.insert(table).on_conflict_do_nothing(index_elements=["digest"])
        elif self._dialect == "sqlite":
            statement = sqlite.insert(table).on_conflict_do_nothing(index_elements=["digest"])
        else:
            statement = mysql.insert(table).on_duplicate_key_update(digest=table.c.digest)

        def insert() -> None:
            with writing(self._engine, PATIENCE) as connection:
                connection.execute(statement, ordered)

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
