"""Where the results of the ledger's tasks are: in its database, in another one, or in none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    TableClause,
    and_,
    delete,
    inspect,
)
from sqlalchemy.exc import SQLAlchemyError

from ..errors import LedgerError
from ..plain.urls import mask_url
from ..sql import dialects
from ..sql.failures import brief, is_forbidden
from ..sql.result_tables import ResultTables
from ..sql.tables import attempt, taskmeta
from . import queries
from .model import Attempt

logger = logging.getLogger(__name__)

#: Ids in one statement: SQLite takes 32,766 parameters, and older ones 999.
_CHUNK = 500


class Aged(NamedTuple):
    """Rows of tasks that are old, and the order in which they are looked at.

    Each has a ``task_id``, and a ``status`` if ``have_states``, which attempts have not.
    """

    columns: Sequence[ColumnElement[Any]]
    order: Sequence[ColumnElement[Any]]
    condition: ColumnElement[bool]
    have_states: bool


class Results:
    """Celery's result table, found at first use.

    Args:
        ledger: the ledger's engine.
        engine: that of the results: the same object where they are in the ledger's database,
            None where they are in no SQL database.
        places: where the tables are in it.
    """

    def __init__(
        self,
        ledger: Engine,
        engine: Engine | None,
        places: ResultTables,
    ) -> None:
        self._ledger = ledger
        self._engine = engine
        self._places = places
        self._name, self._schema = places.task, places.task_schema
        self._table: TableClause | None = None
        self._deletable = True
        self._has_attempts: bool | None = None  # not looked yet
        #: What the ledger's queries must know of its database.
        self.dialect = dialects.of(ledger)

    @property
    def are_known(self) -> bool:
        """Whether results can be read at all."""
        return self._engine is not None

    @property
    def are_joined(self) -> bool:
        """Whether they are in the ledger's own database."""
        return self._engine is self._ledger

    @property
    def are_deletable(self) -> bool:
        """Whether the database has let us delete results so far."""
        return self._deletable

    def close(self) -> None:
        """Close the connections of a database of their own."""
        if self._engine is not None:
            self._engine.dispose()

    def joined(self) -> TableClause | None:
        """Return the table if it is in the ledger's database."""
        return self.table() if self.are_joined else None

    def required(self, doing: str) -> TableClause:
        """Return the table to filter or count by state in SQL; :class:`LedgerError` if not here.

        :param doing: what cannot be done without it, such as "filter by state".
        """
        table = self.joined()
        if table is not None:
            return table
        if self.are_known:
            place = f"in another database ({mask_url(str(self._url()))})"
        else:
            place = "in no SQL database"
        raise LedgerError(
            f"Cannot {doing}: the results are {place}. Set LEDGER_URL to the result backend's "
            "database, so that one database has both."
        )

    def _url(self) -> object:
        return self._engine.url.render_as_string() if self._engine is not None else ""

    def table(self) -> TableClause | None:
        """Return the table with the columns that it has; None where it does not exist yet."""
        if self._table is None and self._engine is not None:
            with self._engine.connect() as connection:
                self._table = self._find(connection)
        return self._table

    def _find(self, connection: Connection) -> TableClause | None:
        inspector = inspect(connection)
        if not inspector.has_table(self._name, schema=self._schema):
            if self.are_joined:
                is_ours = (self._name, self._schema) == (taskmeta.name, None)
                how = (
                    "run `celery -A proj ledger upgrade`"
                    if is_ours
                    else "the first result that a worker stores makes it"
                )
                raise LedgerError(
                    f"The result table {self._name} is missing, or this database role may not "
                    f"see it: {how}, or GRANT SELECT on it."
                )
            return None
        names = [
            column["name"] for column in inspector.get_columns(self._name, schema=self._schema)
        ]
        if self.are_joined:
            self.dialect = self.dialect.knowing(connection, self._name, self._schema)
        return queries.result_table(self._name, self._schema, names)

    def of(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the fields of :class:`Task` of the results of ``ids``, where there are any."""
        table = self.table()
        if table is None or self._engine is None:
            return {}
        outcomes = {}
        with self._engine.connect() as connection:
            for start in range(0, len(ids), _CHUNK):
                query = queries.results_of(table, ids[start : start + _CHUNK])
                for row in connection.execute(query).mappings():
                    outcomes[row["task_id"]] = queries.to_outcome(row)
        return outcomes

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the states of those of ``ids`` that have a result."""
        table = self.table()
        if table is None or self._engine is None:
            return {}
        with self._engine.connect() as connection:
            rows = connection.execute(queries.states_of(table, ids)).all()
        return {row.task_id: row.status for row in rows}

    def attempts(self, task_id: str) -> tuple[Attempt, ...]:
        """Return what is kept of a task's attempts, the first one first."""
        engine = self._engine
        if engine is None:
            return ()
        with engine.connect() as connection:
            kept = self._attempts(connection)
            if kept is None:
                return ()
            return tuple(
                Attempt(*row) for row in connection.execute(queries.attempts_of(kept, task_id))
            )

    def _attempts(self, connection: Connection) -> TableClause | None:
        if self._has_attempts is None:
            inspector = inspect(connection)
            self._has_attempts = inspector.has_table(attempt.name, schema=self._schema)
        return queries.attempt_table(self._schema) if self._has_attempts else None

    def delete(self, connection: Connection, ids: Sequence[str]) -> None:
        """Delete the results of ``ids`` where they are in the ledger's database and it lets us."""
        table = self.joined()
        if table is not None:
            self._try(connection, delete(table).where(table.c.task_id.in_(ids)))
            attempts = self._attempts(connection)
            if attempts is not None:
                self._try(connection, delete(attempts).where(attempts.c.task_id.in_(ids)))

    # -- what is old ----------------------------------------------------------------------------

    def aged(self, connection: Connection, before: datetime, unfinished: bool) -> list[Aged]:
        """Return where results and attempts of tasks are that ended before that moment.

        Nothing where they are not in the ledger's database, or are not ours to delete.

        :param unfinished: also results of tasks that have not ended, but began before it.
        """
        table = self.joined()
        if table is None or not self._deletable:
            return []
        moment = queries.naive(before)
        columns = [table.c.task_id, table.c.status]
        order = [table.c.date_done, table.c.id]
        if not self._is_indexed(connection, "date_done"):  # a table of Celery before 5.7
            order = order[1:]
        aged = [Aged(columns, order, table.c.date_done < moment, True)]
        if unfinished and "date_started" in table.c:
            began = and_(table.c.date_done.is_(None), table.c.date_started < moment)
            aged.append(Aged(columns, [table.c.id], began, True))
        attempts = self._attempts(connection)
        if attempts is not None:
            order = [attempts.c.ended_at, attempts.c.task_id]
            aged.append(Aged([], order, attempts.c.ended_at < before, False))
        return aged

    def groups(self, connection: Connection) -> TableClause | None:
        """Return the table of group results; None as :meth:`aged` returns nothing."""
        name, schema = self._places.group, self._places.group_schema
        if not self.are_joined or not self._deletable:
            return None
        if not inspect(connection).has_table(name, schema=schema):
            return None
        return queries.group_table(name, schema)

    def _is_indexed(self, connection: Connection, column: str) -> bool:
        indexes = inspect(connection).get_indexes(self._name, schema=self._schema)
        return any(index["column_names"][:1] == [column] for index in indexes)

    def delete_groups(self, connection: Connection, ids: Sequence[int]) -> None:
        """Delete group results by their number, as :meth:`delete` does."""
        table = queries.group_table(self._places.group, self._places.group_schema)
        self._try(connection, delete(table).where(table.c.id.in_(ids)))

    def _try(self, connection: Connection, statement: Any) -> None:
        if not self._deletable:
            return
        try:
            with connection.begin_nested():
                connection.execute(statement)
        except SQLAlchemyError as exc:
            if not is_forbidden(exc):
                raise
            self._deletable = False
            logger.warning(
                "The results stay where they are, since this database role may not delete them "
                "(%s)",
                brief(exc),
            )
