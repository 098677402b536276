"""The result backend's writes as SQL, for each database; nothing here talks to one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    true,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite

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

_Rule = Callable[[Any, Any], ColumnElement[bool]]


class Statements:
    """The writes to one result table.

    A result that is final is never overwritten by one that is not, nor a SUCCESS by anything,
    nor what a later attempt says by an earlier one; so a task that is delivered twice cannot
    spoil what is known of it.

    Args:
        table: the result table.
        columns: the columns that it really has.
        dialect: the database's name, as SQLAlchemy calls it.
    """

    def __init__(self, table: Table, columns: Iterable[str], dialect: str) -> None:
        self.columns = frozenset(columns)
        #: For a state on the way: STARTED, RETRY and an application's own.
        self.progress: Insert = upsert(table, dialect, ["task_id"], self._rules(_may_progress))
        #: For a task that raised ``Ignore``: what it has stored itself stays.
        self.ignored: Insert = upsert(table, dialect, ["task_id"], self._rules(_may_be_ignored))
        #: For a final state.
        self.finish: Insert = upsert(table, dialect, ["task_id"], self._rules(_may_finish))
        #: For the final state of a task whose row this process has written already. It takes no
        #: number of the table's sequence, which would be used up twice as fast.
        self.finish_known: Update = (
            update(table)
            .where(table.c.task_id == bindparam("known_id"), _may_finish(table.c))
            .values({key: bindparam(key) for key in self._written_last})
        )

    @property
    def _written_last(self) -> list[str]:
        return [key for key in (*REPLACED, "date_started") if key in self.columns]

    def _rules(self, allowed: _Rule) -> tuple[list[str], list[str], _Rule]:
        replaced = [key for key in REPLACED if key in self.columns]
        completed = [key for key in COMPLETED if key in self.columns]
        if "retries" not in self.columns:
            plain: dict[_Rule, _Rule] = {_may_progress: _is_open, _may_be_ignored: _is_celerys}
            allowed = plain.get(allowed, allowed)
        return replaced, completed, allowed


def upsert(
    table: Table, dialect: str, key: list[str], rules: tuple[list[str], list[str], _Rule]
) -> Insert:
    """Return an INSERT that updates the row if it is there and the rule allows it.

    Args:
        key: the columns of the unique key.
        rules: the columns that are replaced; those that are where the new value is not NULL;
            and the condition for either, of the present and the new row.
    """
    replaced, completed, allowed = rules
    values: dict[str, Any] = {column: bindparam(column) for column in (*key, *replaced, *completed)}
    if dialect in ("mysql", "mariadb"):
        insert = mysql.insert(table).values(values)
        present, new = table.c, insert.inserted
        condition = allowed(present, new)
        changes = [
            (column, func.if_(condition, value, present[column]))
            for column, value in _changes(present, new, replaced, completed)
        ]
        # MySQL sees the new values in what follows: what the condition asks must change last.
        changes.sort(key=lambda change: (change[0] == "status", change[0] == "retries"))
        return insert.on_duplicate_key_update(changes).inline()
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    plain: Any = make(table).values(values)
    present, new = table.c, plain.excluded
    statement: Insert = plain.on_conflict_do_update(
        index_elements=key,
        set_=dict(_changes(present, new, replaced, completed)),
        where=allowed(present, new),
    ).inline()
    return statement


def _changes(
    present: Any, new: Any, replaced: list[str], completed: list[str]
) -> list[tuple[str, Any]]:
    return [
        *((column, new[column]) for column in replaced),
        *((column, func.coalesce(new[column], present[column])) for column in completed),
    ]


def always(present: Any, new: Any) -> ColumnElement[bool]:
    """Allow each change; the rule of tables whose last row counts."""
    return true()


def _may_finish(present: Any, new: Any = None) -> ColumnElement[bool]:
    allowed: ColumnElement[bool] = or_(present["status"].is_(None), present["status"] != _SUCCESS)
    return allowed


def _is_open(present: Any, new: Any) -> ColumnElement[bool]:
    return or_(present["status"].is_(None), present["status"].not_in(_FINAL))


def _is_celerys(present: Any, new: Any) -> ColumnElement[bool]:
    return or_(present["status"].is_(None), present["status"].in_(_OPEN))


def _is_later(present: Any, new: Any) -> ColumnElement[bool]:
    return or_(
        new["retries"].is_(None),
        present["retries"].is_(None),
        new["retries"] >= present["retries"],
    )


def _may_progress(present: Any, new: Any) -> ColumnElement[bool]:
    return and_(_is_open(present, new), _is_later(present, new))


def _may_be_ignored(present: Any, new: Any) -> ColumnElement[bool]:
    return and_(_is_celerys(present, new), _is_later(present, new))
