"""Many rows in one statement, as a driver takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Dialect, Insert

from ..tables import UTCDateTime
from ..upserts import Upsert

Column = Sequence[Any]


class Batch:
    """A statement for many rows, which come as columns; for the driver's ``executemany``.

    Attributes:
        statement: its SQL, for ``exec_driver_sql``.
    """

    def __init__(self, upsert: Upsert, insert: Insert, dialect: Dialect) -> None:
        compiled: Any = insert.compile(dialect=dialect)
        self.statement = str(compiled)
        names: list[str] = compiled.positiontup
        columns = list(upsert.columns)
        self._order = [columns.index(name) for name in names]
        self._are_times = [isinstance(upsert.table.c[name].type, UTCDateTime) for name in names]

    def parameters(self, columns: Sequence[Column]) -> Any:
        """Return the columns, in the order of the upsert's, as the statement's parameters."""
        # With times as text, as that type has them on SQLite and MySQL.
        ordered = [
            [v and v.isoformat(" ", "microseconds")[:26] for v in columns[place]]
            if is_time
            else columns[place]
            for place, is_time in zip(self._order, self._are_times, strict=True)
        ]
        return list(zip(*ordered, strict=True))


class ArrayBatch(Batch):
    """The same as one array a column, which PostgreSQL takes apart."""

    def parameters(self, columns: Sequence[Column]) -> Any:
        """Return the columns as the texts of arrays."""
        return tuple([_array(columns[place]) for place in self._order])


def _array(column: Column) -> str:
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
