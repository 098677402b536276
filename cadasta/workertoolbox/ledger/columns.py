"""A batch of task records as columns that every database takes.

The order of two publications of one task is (replacements, retries, time). The parent is that of
the first publication: Celery names a task that retries or replaces itself its own parent. What the
caller said once, as in ``apply_async(headers=…)``, stays true unless a later publication says
something else of the same name. A column is cleaned as a whole, which costs far less than value by
value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from operator import attrgetter
from typing import Any, NamedTuple

from ..messages.decoding import TaskRecord
from ..plain.json_text import dump, harmless
from ..sql import tables as schema
from ..sql.fitting import ID_LENGTH, key

Values = Sequence[Any]


#: What stays of the publication before, name by name.
KEPT = ("stamps", "headers", "properties")


class Merged(NamedTuple):
    """The publications of one task in a batch: the latest, and what is kept of the others."""

    record: TaskRecord
    first: datetime
    last: datetime
    publications: int


def _moment(value: datetime) -> datetime:
    if value.tzinfo is timezone.utc:
        return value
    if value.tzinfo is None:
        raise ValueError(f"naive datetime {value!r}")
    return value.astimezone(timezone.utc)


def _order(merged: Merged) -> tuple[int, int, datetime]:
    return merged.record.replacements, merged.record.retries, merged.last


def merge(records: Sequence[TaskRecord], now: datetime) -> list[Merged]:
    """Return one entry a task, sorted by id, so that two writers never deadlock."""
    by_id: dict[str, Merged] = {}
    for record in records:
        moment = now if record.published_at is None else _moment(record.published_at)
        new = Merged(record, moment, moment, 1)
        old = by_id.get(record.task_id)
        if old is not None:
            latest = new if _order(new) > _order(old) else old
            first, parent_id = old.first, old.record.parent_id
            if moment < first:
                first, parent_id = moment, record.parent_id
            changes: dict[str, Any] = {}
            if latest is new:
                for name in KEPT:
                    if said := getattr(old.record, name):
                        changes[name] = {**said, **(getattr(record, name) or {})}
            if latest.record.parent_id != parent_id:
                changes["parent_id"] = parent_id
            if changes:
                latest = latest._replace(record=replace(latest.record, **changes))
            new = latest._replace(first=first, publications=old.publications + 1)
        by_id[record.task_id] = new
    return [by_id[task_id] for task_id in sorted(by_id)]


def _text(limit: int | None) -> Callable[[Values], Values]:
    def clean(column: Values) -> Values:
        present = [value for value in column if value is not None]
        together = "".join(present)
        if "\0" in together or not (together.isascii() or _encodable(together)):
            column = [None if value is None else harmless(value) for value in column]
        if limit and present and max(map(len, present)) > limit:
            column = [None if value is None else value[:limit] for value in column]
        return column

    return clean


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_harmless = _text(None)


def _key(column: Values) -> Values:
    # Not made to fit, as other texts are: two ids must not become one.
    if not all(column):
        raise ValueError("the task id is empty")
    if max(map(len, column)) > ID_LENGTH:
        raise ValueError(f"the task id has more than {ID_LENGTH} characters")
    if _harmless(column) is not column:
        raise ValueError("the task id has characters that databases refuse")
    return column


def _other_ids(column: Values) -> Values:
    column = _harmless(column)
    if max(len(value) for value in column if value is not None) > ID_LENGTH:
        column = [None if value is None else key(value) for value in column]
    return column


def _times(column: Values) -> Values:
    return [None if value is None else _moment(value) for value in column]


def _objects(column: Values) -> Values:
    return [dump(value) if value else None for value in column]


def _integers(column: Values) -> Values:
    return [None if value is None else int(value) for value in column]


def _floats(column: Values) -> Values:
    return [None if value is None or not math.isfinite(value) else float(value) for value in column]


def _flags(column: Values) -> Values:
    return [bool(value) for value in column]


_CLEANERS: dict[str, Callable[[Values], Values]] = {
    "task_id": _key,
    "root_id": _other_ids,
    "parent_id": _other_ids,
    "group_id": _other_ids,
    "stamps": _objects,
    "headers": _objects,
    "properties": _objects,
    "eta": _times,
    "expires": _times,
    "args_truncated": _flags,
    "ignore_result": _flags,
    "retries": _integers,
    "replacements": _integers,
    "priority": _integers,
    "time_limit": _floats,
    "soft_time_limit": _floats,
}
_COUNTED = ("published_at", "last_published_at", "publications", "recorded_at")
FIELDS = tuple(name for name in schema.task.c.keys() if name not in _COUNTED)
COLUMNS = (*FIELDS, *_COUNTED)
_fields = attrgetter(*FIELDS)
_cleaners = tuple(
    _CLEANERS.get(name) or _text(getattr(schema.task.c[name].type, "length", None))
    for name in FIELDS
)


def columns_of(batch: Sequence[Merged], now: datetime) -> list[Values]:
    """Return the columns of a batch in the order of :data:`COLUMNS`, ready for a database.

    Text without NUL and not too long, JSON as text, times in UTC. Raises ``TypeError`` or
    ``ValueError`` for a value that is not of its column's type.
    """
    columns: list[Values] = [
        column if column.count(None) == len(column) else clean(column)
        for clean, column in zip(
            _cleaners, zip(*[_fields(merged.record) for merged in batch], strict=True), strict=True
        )
    ]
    columns.append([merged.first for merged in batch])
    columns.append([merged.last for merged in batch])
    columns.append([merged.publications for merged in batch])
    columns.append([now] * len(batch))
    return columns
