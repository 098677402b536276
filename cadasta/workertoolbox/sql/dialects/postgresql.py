"""PostgreSQL, and how it is asked and written to at its fastest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    extract,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql.base import PGDialect

from ...plain.json_text import dump
from ..keepalive import keepalives
from ..prepared import PreparedWriter
from ..upserts import Upsert
from .batches import ArrayBatch
from .dialect import Dialect, Limit, known_codec

#: Its names of character sets where Python's are others.
_CODECS = {"UTF8": None, "SQL_ASCII": "ascii", "KOI8R": "koi8-r", "KOI8U": "koi8-u"}
#: The largest statement and value, in bytes; a little is left for the rest of it.
_LIMIT = Limit("PostgreSQL's limit", 2**30 - 2**16)


@dataclass(frozen=True)
class PostgreSQL(Dialect):
    """PostgreSQL."""

    name: str = "postgresql"

    port: ClassVar[int] = 5432
    keeps_alive: ClassVar[bool] = True  # libpq does
    #: Compiling takes it longer than reading a page, and parallel workers read on after it is full.
    page_hint: ClassVar[str | None] = (
        "SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0"
    )

    def with_driver(self, url: URL) -> URL:
        # SQLAlchemy 2.1 takes psycopg 3 where none is named; psycopg2 is what we require.
        if "+" in url.drivername:
            return url
        return url.set(drivername="postgresql+psycopg2")

    def connect_arguments(self, url: URL, timeout: float | None) -> dict[str, Any]:
        arguments = super().connect_arguments(url, timeout)
        if not arguments:
            return arguments
        arguments["application_name"] = "cadasta-workertoolbox"
        if timeout:
            options = keepalives(timeout)
            arguments |= {
                "keepalives_idle": options["TCP_KEEPIDLE"],
                "keepalives_interval": options["TCP_KEEPINTVL"],
                "keepalives_count": options["TCP_KEEPCNT"],
                "tcp_user_timeout": options["TCP_USER_TIMEOUT"],
            }
        return arguments

    def unreachable(self, driver: Any, text: str) -> Exception:
        error: Exception = driver.OperationalError(text)
        return error

    def _insert(self, table: Table) -> Any:
        return postgresql.insert(table)

    def batch(self, upsert: Upsert) -> ArrayBatch:
        # An array a column: a tenth of the parameters, and one plan whatever the number of rows.
        arrays = [
            cast(bindparam(name), ARRAY(upsert.table.c[name].type)) for name in upsert.columns
        ]
        rows: Select[Any] = select(literal_column("*")).select_from(func.unnest(*arrays))
        insert = self._insert(upsert.table).from_select(list(upsert.columns), rows)
        plain = PGDialect(paramstyle="format")  # type: ignore[no-untyped-call]
        return ArrayBatch(upsert, self._changing(insert, upsert), plain)

    def merged_json(self, present: Any, new: Any) -> ColumnElement[Any]:
        # ``||`` gives NULL where either is.
        both = cast(present, JSONB).op("||")(cast(new, JSONB))
        return func.coalesce(cast(both, present.type), new, present)

    def json_as_text(self, column: Column[Any]) -> ColumnElement[Any]:
        return cast(column, Text).label(column.name)

    def by_sparse_index(
        self, of_index: ColumnElement[bool], condition: ColumnElement[bool]
    ) -> ColumnElement[bool]:
        # It sees by itself that the sparse index will do, and would take this for a second
        # condition that halves what it expects.
        return condition

    def contains(self, column: Any, wanted: Mapping[str, Any]) -> ColumnElement[bool]:
        return cast(column, JSONB).contains(cast(literal(dump(dict(wanted)), Text), JSONB))

    def seconds(self, start: Any, end: Any) -> ColumnElement[Any]:
        # The same for a column without time zone, which is UTC in Celery's tables.
        return cast(extract("epoch", end) - extract("epoch", start), Float(53))

    def writer(self, engine: Engine, autocommits: bool) -> PreparedWriter | None:
        return PreparedWriter(engine, autocommits) if engine.dialect.driver == "psycopg2" else None

    def codec(self, engine: Engine, table: Table) -> str | None:
        with engine.connect() as connection:
            return codec_of(str(connection.scalar(text("SHOW server_encoding"))))

    def statement_limit(self, engine: Engine) -> Limit | None:
        return _LIMIT

    def size(self, row: Mapping[str, Any], driver: str) -> int:
        size = super().size(row, driver)
        if driver == "psycopg2":  # in hexadecimal
            size += sum(len(value) for value in row.values() if isinstance(value, bytes))
        return size

    @contextmanager
    def migration_lock(self, connection: Connection, key: int) -> Iterator[None]:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        yield


def codec_of(encoding: str) -> str | None:
    """Return Python's codec for a database's encoding; None where it takes all of Unicode."""
    if encoding in _CODECS:
        return _CODECS[encoding]
    return known_codec(encoding.replace("WIN", "cp"))
