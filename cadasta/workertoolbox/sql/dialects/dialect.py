"""A database to write SQL for: callers say what they want, and it says how."""

from __future__ import annotations

import codecs
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import Column, ColumnElement, Connection, Engine, Insert, Table, bindparam

from ..prepared import PreparedWriter
from ..upserts import Row, Upsert
from .batches import Batch
from .database import Database


@dataclass(frozen=True, slots=True)
class Limit:
    """How many bytes a database takes, and what the limit is called."""

    name: str
    size: int


@dataclass(frozen=True)
class Dialect(Database, ABC):
    """A database whose SQL we know: :mod:`.postgresql`, :mod:`.sqlite`, :mod:`.mysql`."""

    #: Run before a page is read.
    page_hint: ClassVar[str | None] = None
    #: Whether each change of a table commits, so that no savepoint is there afterwards.
    commits_changes: ClassVar[bool] = False
    #: Whether a role sees only the tables on which it has a right.
    hides_tables: ClassVar[bool] = False
    #: The largest value, where a larger one is refused by an error.
    value_limit: ClassVar[Limit | None] = None

    # -- writing --------------------------------------------------------------------------------

    @abstractmethod
    def _insert(self, table: Table) -> Any:
        """Return SQLAlchemy's INSERT of this database."""

    def upsert(self, upsert: Upsert) -> Insert:
        """Return the statement for one row, with a parameter for each column."""
        values: dict[str, Any] = {column: bindparam(column) for column in upsert.columns}
        return self._changing(self._insert(upsert.table).values(values).inline(), upsert)

    def _changing(self, insert: Any, upsert: Upsert) -> Insert:
        present, new = upsert.table.c, insert.excluded
        statement: Insert = insert.on_conflict_do_update(
            index_elements=upsert.key,
            set_=dict(upsert.changes(present, new)),
            where=None if upsert.allowed is None else upsert.allowed(present, new),
        )
        return statement

    @abstractmethod
    def batch(self, upsert: Upsert) -> Batch:
        """Return the statement for many rows at once."""

    def insert_missing(self, table: Table, key: Sequence[str]) -> Insert:
        """Return an INSERT of all columns that leaves a row of the same key as it is."""
        statement: Insert = self._insert(table).on_conflict_do_nothing(index_elements=key)
        return statement

    @abstractmethod
    def merged_json(self, present: Any, new: Any) -> ColumnElement[Any]:
        """Return one JSON object with what a second one says besides, or instead, name by name.

        Either may be NULL.
        """

    # -- asking ---------------------------------------------------------------------------------

    def knowing(self, connection: Connection, table: str, schema: str | None) -> Dialect:
        """Return the dialect for questions that join the ledger with this table of results."""
        return self

    def same_task(self, ours: Row, theirs: Row, results_first: bool) -> ColumnElement[bool]:
        """Return the condition that the ids of a task and of a result are the same.

        Args:
            results_first: whether the database begins with the results and looks up the tasks.
        """
        same: ColumnElement[bool] = theirs == ours
        return same

    def json_as_text(self, column: Column[Any]) -> ColumnElement[Any]:
        """Return a JSON column as text: drivers would parse JSON by rules of their own."""
        return column

    def by_sparse_index(
        self, of_index: ColumnElement[bool], condition: ColumnElement[bool]
    ) -> ColumnElement[bool]:
        """Return a condition so that the index with the narrower condition is used for it."""
        return of_index & condition

    def matches(self, column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
        """Return the condition that text is like a pattern, in which ``*`` is for any characters.

        Capitals and small letters are different ones.
        """
        escaped = re.sub(r"([/%_])", r"/\1", pattern)
        return column.like(escaped.replace("*", "%"), escape="/")

    @abstractmethod
    def contains(self, column: Any, wanted: Mapping[str, Any]) -> ColumnElement[bool]:
        """Return the condition that a JSON column contains ``wanted``, nested as well."""

    @abstractmethod
    def seconds(self, start: Any, end: Any) -> ColumnElement[Any]:
        """Return the time between two moments."""

    # -- results --------------------------------------------------------------------------------

    def writer(self, engine: Engine, autocommits: bool) -> PreparedWriter | None:
        """Return what executes prepared statements, where they are worth it."""
        return None

    def limit_lock_wait(self, engine: Engine, seconds: int) -> None:
        """Let a statement wait no longer than that for another process, which locks all tables."""

    @abstractmethod
    def codec(self, engine: Engine, table: Table) -> str | None:
        """Return the character set of a table's text; None where it takes all of Unicode."""

    def statement_limit(self, engine: Engine) -> Limit | None:
        """Return above which size a statement ends the connection; None: none, or not known."""
        return None

    def size(self, row: Mapping[str, Any], driver: str) -> int:
        """Return how many bytes the values of a row take in the driver's statement, nearly."""
        texts = [
            value.encode("utf-8", "replace") if isinstance(value, str) else value
            for value in row.values()
            if isinstance(value, str | bytes)
        ]
        return sum(map(len, texts))

    # -- tables ---------------------------------------------------------------------------------

    @contextmanager
    def migration_lock(self, connection: Connection, key: int) -> Iterator[None]:
        """Hold a lock that only one process can have, until the transaction ends."""
        yield


def known_codec(name: str) -> str:
    """Return Python's name of a character set, or that of ASCII, which is part of each."""
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "ascii"
