"""Tasks and results for the tests of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import insert, select

from cadasta.workertoolbox.ledger.ledger import Ledger
from cadasta.workertoolbox.messages.decoding import TaskRecord
from cadasta.workertoolbox.sql.engines import make_engine
from cadasta.workertoolbox.sql.tables import task, taskmeta

NOW = datetime(2024, 5, 17, 12, 30, 15, 123456, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)
#: Everything published at ``NOW`` is older than this.
LONG = timedelta(days=1)


def record(task_id: str, **fields: Any) -> TaskRecord:
    """Return a record of a task published at ``NOW``."""
    return TaskRecord(**{"name": "export.pdf", "published_at": NOW, "task_id": task_id, **fields})


def add_result(ledger: Ledger, task_id: str, state: str, **columns: Any) -> None:
    """Write a row of the result table, as Celery would."""
    row = {"task_id": task_id, "status": state, "date_done": NOW.replace(tzinfo=None), **columns}
    engine = make_engine(ledger._engine.url.render_as_string(hide_password=False))
    with engine.begin() as connection:
        connection.execute(insert(taskmeta).values(row))
    engine.dispose()


def rows(ledger: Ledger, table: Any = task) -> list[Any]:
    """Return a table's rows by its first column."""
    with ledger._engine.connect() as connection:
        return list(connection.execute(select(table).order_by(next(iter(table.c)))))


class LedgerFixture:
    """The ledger of a test; a subclass has the fixture ``url``, of an empty database."""

    @pytest.fixture
    def ledger(self, url: str) -> Iterator[Ledger]:
        with Ledger(url) as ledger:
            yield ledger
