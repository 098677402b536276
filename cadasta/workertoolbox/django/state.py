"""A task's state as the ORM sees it: computed of two tables, searched by their indexes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from django.db import models
from django.db.models import F, Func
from django.db.models.lookups import Exact, In

from ..ledger.model import IGNORED, PENDING
from .celery_app import leaves_ignored_untold

#: States that can stand in the SQL itself: only there do they match the sparse index on them.
_PLAIN = re.compile(r"[A-Za-z_]{1,50}\Z")
_SUCCESS = "SUCCESS"


class StateField(models.CharField):
    """The type of :class:`State`; its lookups are below."""


class State(Func):
    """The result's state; where there is none PENDING, or IGNORED if nobody will tell."""

    output_field = StateField(max_length=50)

    def __init__(self, *expressions: Any, **extra: Any) -> None:
        default = (F("outcome__status"), F("ignore_result"), F("task_id"))
        super().__init__(*(expressions or default), **extra)

    def as_sql(self, compiler: Any, connection: Any, **_: Any) -> tuple[str, list[Any]]:
        status, ignored, _task_id = (compiler.compile(one)[0] for one in self.source_expressions)
        absent = f"'{PENDING}'"
        if leaves_ignored_untold():
            absent = f"CASE WHEN {ignored} THEN '{IGNORED}' ELSE {absent} END"
        return f"COALESCE({status}, {absent})", []

    def matching(
        self, states: Iterable[str], compiler: Any, connection: Any
    ) -> tuple[str, list[Any]]:
        """Return the condition that it is one of ``states``, as the ledger's queries put it.

        It is never NULL, so that it can be negated.
        """
        wanted = sorted(set(states))
        status, ignored, task_id = (compiler.compile(one)[0] for one in self.source_expressions)
        untold = leaves_ignored_untold()
        if wanted == [PENDING]:
            # As an anti-join, which ends when the page is full; an outer join would read all.
            results = self.source_expressions[0].target.model._meta
            table, key, state = (
                connection.ops.quote_name(name)
                for name in (results.db_table, "task_id", self.source_expressions[0].target.column)
            )
            told = (
                f"NOT EXISTS (SELECT 1 FROM {table} told WHERE told.{key} = {task_id}"  # noqa: S608 - names
                f" AND told.{state} <> '{PENDING}')"
            )
            return (f"({told} AND NOT {ignored})" if untold else told), []
        literals, params = _literals(wanted)
        if _SUCCESS in wanted:
            # Nearly all tasks: the database must begin with the newest of them, not with the
            # results. So it may not see that the result is required.
            return f"{self.as_sql(compiler, connection)[0]} IN ({literals})", params
        condition = f"{status} IS NOT NULL AND {status} IN ({literals})"
        absent = {PENDING, *([IGNORED] if untold else [])} & set(wanted)
        if absent:
            missing = f"{status} IS NULL"
            if untold and len(absent) == 1:
                missing += f" AND {ignored}" if IGNORED in absent else f" AND NOT {ignored}"
            return f"({missing} OR ({condition}))", params
        if connection.vendor != "postgresql":  # which sees by itself that the sparse index will do
            condition += f" AND {status} <> '{_SUCCESS}'"
        return f"({condition})", params


def _literals(states: Iterable[str]) -> tuple[str, list[Any]]:
    parts, params = [], []
    for state in states:
        if _PLAIN.match(state):
            parts.append(f"'{state}'")
        else:
            parts.append("%s")
            params.append(state)
    return ", ".join(parts), params


@StateField.register_lookup
class StateIs(Exact):
    """``state="FAILURE"``."""

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        if isinstance(self.lhs, State) and isinstance(self.rhs, str):
            return self.lhs.matching([self.rhs], compiler, connection)
        return super().as_sql(compiler, connection)


@StateField.register_lookup
class StateIn(In):
    """``state__in=["FAILURE", "RETRY"]``."""

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        states = self.rhs
        is_list = isinstance(states, list | tuple | set | frozenset)
        if (
            isinstance(self.lhs, State)
            and is_list
            and states
            and all(isinstance(state, str) for state in states)
        ):
            return self.lhs.matching(states, compiler, connection)
        return super().as_sql(compiler, connection)
