"""What may overwrite a result, as the statements that write to the result tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Insert,
    Table,
    Update,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    update,
)

from ..sql.dialects import Dialect
from ..sql.upserts import Row, Rule, Upsert

#: What a later write replaces, and what it replaces only where it tells something.
REPLACED = ("status", "result", "date_done", "traceback", "children", "runtime")
COMPLETED = ("name", "args", "kwargs", "worker", "retries", "queue", "stamps", "date_started")

#: In the SQL itself: a parameter would be one more to send with each write.
_SUCCESS: ColumnElement[str] = literal_column("'SUCCESS'")
_FINAL = [_SUCCESS, literal_column("'FAILURE'"), literal_column("'REVOKED'")]
#: What Celery itself stores of a task that has not ended.
_OPEN: list[ColumnElement[str]] = [
    literal_column(f"'{state}'") for state in ("PENDING", "RECEIVED", "STARTED", "RETRY")
]


class Statements:
    """The writes to one result table.

    A result that is final is never overwritten by one that is not, nor a SUCCESS by anything,
    nor what a later attempt says by an earlier one; so a task that is delivered twice cannot
    spoil what is known of it.

    Args:
        dialect: the database's.
        table: the result table.
        columns: the columns that it really has.
    """

    def __init__(self, dialect: Dialect, table: Table, columns: Collection[str]) -> None:
        self._dialect, self._table = dialect, table
        self._replaced = [key for key in REPLACED if key in columns]
        self._completed = [key for key in COMPLETED if key in columns]
        knows_attempts = "retries" in columns
        #: For a state on the way: STARTED, RETRY and an application's own.
        self.progress = self._upsert(_may_progress if knows_attempts else _is_open)
        #: For a task that raised ``Ignore``: what it has stored itself stays.
        self.ignored = self._upsert(_may_be_ignored if knows_attempts else _is_celerys)
        #: For a final state.
        self.finish = self._upsert(_may_finish)
        #: For the final state of a task whose row this process has written already. It takes no
        #: number of the table's sequence, which would be used up twice as fast.
        written_last = [key for key in (*REPLACED, "date_started") if key in columns]
        self.finish_known: Update = (
            update(table)
            .where(table.c.task_id == bindparam("known_id"), _may_finish(table.c))
            .values({key: bindparam(key) for key in written_last})
        )

    def _upsert(self, allowed: Rule) -> Insert:
        return self._dialect.upsert(
            Upsert(
                table=self._table,
                key=["task_id"],
                columns=["task_id", *self._replaced, *self._completed],
                changes=self._changes,
                allowed=allowed,
                decisive=("retries", "status"),
            )
        )

    def _changes(self, present: Row, new: Row) -> dict[str, ColumnElement[Any]]:
        return {
            **{column: new[column] for column in self._replaced},
            **{column: func.coalesce(new[column], present[column]) for column in self._completed},
        }


def replacing(dialect: Dialect, table: Table, key: Sequence[str], columns: Sequence[str]) -> Insert:
    """Return an upsert to a table whose last row counts.

    Args:
        key: the columns of the unique key.
        columns: all others that are written.
    """
    return dialect.upsert(
        Upsert(
            table=table,
            key=key,
            columns=[*key, *columns],
            changes=lambda _present, new: {column: new[column] for column in columns},
        )
    )


def _may_finish(present: Row, _new: Row = None) -> ColumnElement[bool]:
    allowed: ColumnElement[bool] = or_(present["status"].is_(None), present["status"] != _SUCCESS)
    return allowed


def _is_open(present: Row, _new: Row) -> ColumnElement[bool]:
    return or_(present["status"].is_(None), present["status"].not_in(_FINAL))


def _is_celerys(present: Row, _new: Row) -> ColumnElement[bool]:
    return or_(present["status"].is_(None), present["status"].in_(_OPEN))


def _is_later(present: Row, new: Row) -> ColumnElement[bool]:
    return or_(
        new["retries"].is_(None),
        present["retries"].is_(None),
        new["retries"] >= present["retries"],
    )


def _may_progress(present: Row, new: Row) -> ColumnElement[bool]:
    return and_(_is_open(present, new), _is_later(present, new))


def _may_be_ignored(present: Row, new: Row) -> ColumnElement[bool]:
    return and_(_is_celerys(present, new), _is_later(present, new))
