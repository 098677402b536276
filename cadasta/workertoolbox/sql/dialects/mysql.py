"""MySQL and MariaDB, whose upserts see what they have just assigned."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, ClassVar

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Insert,
    Table,
    case,
    func,
    literal_column,
    null,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import SQLAlchemyError

from ...errors import LedgerError
from ...plain.json_text import dump, paths_of_values
from ..fitting import UTF8MB3
from ..upserts import Row, Upsert
from .batches import Batch
from .dialect import Dialect, Limit, known_codec

#: What its drivers write as two bytes.
_ESCAPED = (b"\\", b"'", b'"', b"\0", b"\n", b"\r", b"\x1a")
_ESCAPING_DRIVERS = frozenset(("pymysql", "mysqldb", "mysqlconnector"))


class HandshakeLimit(float):
    """A ``read_timeout`` of PyMySQL that is ours, and counts for the handshake alone."""


@dataclass(frozen=True)
class MySQL(Dialect):
    """MySQL and MariaDB.

    Attributes:
        collation: that of the results' task id; it uses an index only where both sides of a
            comparison have its column's collation. None: the ledger's own.
    """

    name: str = "mysql"
    collation: str | None = None

    port: ClassVar[int] = 3306
    #: Its default, REPEATABLE READ, locks gaps, so that two monitors would deadlock.
    engine_options: ClassVar[Mapping[str, Any]] = {"isolation_level": "READ COMMITTED"}
    commits_changes: ClassVar[bool] = True
    hides_tables: ClassVar[bool] = True

    def with_driver(self, url: URL) -> URL:
        if "+" in url.drivername or find_spec("MySQLdb") is not None:
            return url
        return url.set(drivername=f"{url.drivername}+pymysql")

    def connect_arguments(self, url: URL, timeout: float | None) -> dict[str, Any]:
        arguments = super().connect_arguments(url, timeout)
        if timeout and url.get_driver_name() == "pymysql":
            limit = HandshakeLimit(timeout)
            arguments |= {"read_timeout": limit, "write_timeout": limit}
        return arguments

    def connected(self, connection: Any) -> None:
        # PyMySQL's only limit for a handshake; statements have ours, which can be lifted.
        if isinstance(getattr(connection, "_read_timeout", None), HandshakeLimit):
            connection._read_timeout = connection._write_timeout = None

    def _insert(self, table: Table) -> Any:
        return mysql.insert(table)

    def _changing(self, insert: Any, upsert: Upsert) -> Insert:
        present, new = upsert.table.c, insert.inserted
        changes: Mapping[str, Any] = upsert.changes(present, new)
        if upsert.allowed is not None:
            condition = upsert.allowed(present, new)
            changes = {
                name: func.if_(condition, value, present[name]) for name, value in changes.items()
            }
        # It sees the new values in what follows: what conditions ask must change last.
        last = [name for name in upsert.decisive if name in changes]
        order = [*(name for name in changes if name not in last), *last]
        statement: Insert = insert.on_duplicate_key_update(
            [(name, changes[name]) for name in order]
        )
        return statement

    def batch(self, upsert: Upsert) -> Batch:
        return Batch(upsert, self.upsert(upsert), mysql.dialect(paramstyle="format"))

    def insert_missing(self, table: Table, key: Sequence[str]) -> Insert:
        same = {name: table.c[name] for name in key}
        statement: Insert = mysql.insert(table).on_duplicate_key_update(same)
        return statement

    def merged_json(self, present: Any, new: Any) -> ColumnElement[Any]:
        # Its own two functions merge nested objects too and drop NULL, or make lists of two
        # values. So the one takes out of the first object what the second has, by a NULL for each
        # name, and the other adds the second. MariaDB 10.11 misses some names with an escape:
        # then the second is all.
        names = func.json_keys(new)
        inner = func.substr(names, _sql("2"), func.char_length(names) - _sql("2"))
        with_nulls = func.replace(inner, _sql("""'", "'"""), _sql("""'":null,"'"""))
        nulls = func.concat(_sql("'{'"), with_nulls, _sql("':null}'"))
        both = func.json_merge_preserve(func.json_merge_patch(present, nulls), new)
        all_names = func.concat(func.json_keys(present), names)
        has_escape = func.instr(all_names, func.char(_sql("92"))) > _sql("0")
        return func.coalesce(case((has_escape, null()), else_=both), new, present)

    def knowing(self, connection: Connection, table: str, schema: str | None) -> Dialect:
        collation = connection.scalar(
            text(
                "SELECT collation_name FROM information_schema.columns WHERE table_schema = "
                "COALESCE(:schema, DATABASE()) AND table_name = :name AND column_name = "
                "'task_id'"
            ),
            {"schema": schema, "name": table},
        )
        return replace(self, collation=collation)

    def same_task(self, ours: Row, theirs: Row, results_first: bool) -> ColumnElement[bool]:
        if self.collation and results_first:
            theirs = func.convert(theirs.op("USING")(_sql("utf8mb4"))).collate("utf8mb4_bin")
        elif self.collation:
            charset = _sql(self.collation.partition("_")[0])
            ours = func.convert(ours.op("USING")(charset)).collate(self.collation)
        return super().same_task(ours, theirs, results_first)

    def contains(self, column: Any, wanted: Mapping[str, Any]) -> ColumnElement[bool]:
        text = dump(dict(wanted))
        # It compares numbers as floating-point ones: larger integers must stand there as well.
        large = {digits for digits in re.findall(r"\d+", text) if len(digits) > 15}
        exact = [column.contains(digits, autoescape=True) for digits in sorted(large)]
        # To it a list with a value in it contains that value, too.
        single = [
            func.json_type(func.json_extract(column, path)) != "ARRAY"
            for path in paths_of_values(wanted)
        ]
        condition: ColumnElement[bool] = func.json_contains(column, text) == 1
        for other in (*exact, *single):
            condition = condition & other
        return condition

    def seconds(self, start: Any, end: Any) -> ColumnElement[Any]:
        microseconds = func.timestampdiff(literal_column("MICROSECOND"), start, end)
        return microseconds / literal_column("1000000.0", Float)

    def codec(self, engine: Engine, table: Table) -> str | None:
        charsets = text(
            "SELECT DISTINCT character_set_name FROM information_schema.columns WHERE "
            "table_schema = COALESCE(:schema, DATABASE()) AND table_name = :name AND "
            "character_set_name IS NOT NULL"
        )
        with engine.connect() as connection:
            place = {"schema": table.schema, "name": table.name}
            return codec_of(connection.scalars(charsets, place).all())

    def statement_limit(self, engine: Engine) -> Limit | None:
        try:
            with engine.connect() as connection:
                size = connection.scalar(text("SELECT @@max_allowed_packet"))
        except SQLAlchemyError:
            return None  # it does not answer
        return Limit("max_allowed_packet of the server", int(size)) if size else None

    def size(self, row: Mapping[str, Any], driver: str) -> int:
        size = super().size(row, driver)
        if driver in _ESCAPING_DRIVERS:
            for value in row.values():
                if isinstance(value, str | bytes):
                    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
                    size += sum(data.count(one) for one in _ESCAPED)
        return size

    @contextmanager
    def migration_lock(self, connection: Connection, key: int) -> Iterator[None]:
        # The lock is the server's: the database's name keeps two databases apart. The transaction
        # cannot hold it, since each CREATE TABLE commits.
        name = "CONCAT('workertoolbox:', MD5(DATABASE()))"
        if connection.execute(text(f"SELECT GET_LOCK({name}, 60)")).scalar() != 1:
            raise LedgerError(
                "Another process has been making the ledger's tables for a minute: see what it "
                "does (SHOW PROCESSLIST), or end it, then try again."
            )
        try:
            yield
        finally:
            connection.execute(text(f"SELECT RELEASE_LOCK({name})"))


def _sql(text: str) -> ColumnElement[Any]:
    return literal_column(text)


def codec_of(charsets: Collection[str]) -> str | None:
    """Return Python's codec for columns of these character sets; None for all of Unicode."""
    narrow = set(charsets) - {"utf8mb4"}
    if not narrow:
        return None
    if narrow <= {"utf8mb3", "utf8"}:
        return UTF8MB3
    others = narrow - {"utf8mb3", "utf8"}
    if others == {"latin1"}:
        return "cp1252"  # Its latin1 is Microsoft's.
    return known_codec(min(others) if len(others) == 1 else "")
