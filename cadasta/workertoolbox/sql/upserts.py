"""What a write changes where its row is there already; how to say so is the dialect's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Table

#: The columns of a row by their names: of the present one, or of the new one.
Row = Any
#: A condition on the present and the new row.
Rule = Callable[[Row, Row], ColumnElement[bool]]
#: The values that columns take, of the present and the new row.
Changes = Callable[[Row, Row], Mapping[str, ColumnElement[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upsert:
    """A write that makes a row, or changes the one that is there.

    Attributes:
        table: the table.
        key: the columns of the unique key.
        columns: all that the write gives a value, the key's included.
        changes: what changes where the row is there.
        allowed: the condition for any change; None: always.
        decisive: the columns of the present row on which conditions depend, in an order in which
            they may change one after the other. MySQL sees what it has just assigned, so that
            they come last there.
    """

    table: Table
    key: Sequence[str]
    columns: Sequence[str]
    changes: Changes
    allowed: Rule | None = None
    decisive: Sequence[str] = ()
