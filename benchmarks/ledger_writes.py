"""The ledger's writer beside a plain upsert: `python -m benchmarks.ledger_writes [URL]`.

Rows/s into an empty table, in batches of 500 with one transaction each, and the Python CPU time
a row. Without a URL: PostgreSQL at 127.0.0.1 (as postgres) and an SQLite file. On a server, each
run has a database of its own, which is dropped afterwards; the rivals take turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy.engine import make_url

from benchmarks.common import Figure, pair
from cadasta.workertoolbox.ledger.columns import COLUMNS, columns_of, merge
from cadasta.workertoolbox.ledger.ledger import Ledger
from cadasta.workertoolbox.messages.decoding import TaskRecord
from cadasta.workertoolbox.plain.urls import mask_url
from cadasta.workertoolbox.sql.engines import make_engine

POSTGRESQL = "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres"
BATCH = 500

Writer = Callable[[Ledger, Sequence[TaskRecord]], None]


def make_records(count: int) -> list[TaskRecord]:
    """Return records as the monitor makes them of ordinary tasks, one in ten with headers."""
    records = []
    for number in range(count):
        task_id = str(uuid.uuid4())
        records.append(
            TaskRecord(
                task_id=task_id,
                name=f"export.pdf.render{number % 20}",
                queue=f"export{number % 3}",
                root_id=task_id,
                args=f'[{number},"abc"]',
                kwargs=f'{{"user":{number}}}',
                args_repr=f"({number}, 'abc')",
                kwargs_repr=f"{{'user': {number}}}",
                origin="gen12345@worker-host",
                headers={"tenant": number % 100} if number % 10 == 0 else None,
                published_at=datetime.now(timezone.utc),
            )
        )
    return records


def in_batches(ledger: Ledger, records: Sequence[TaskRecord]) -> None:
    """The toolbox."""
    ledger.record(records)


def row_by_row(ledger: Ledger, records: Sequence[TaskRecord]) -> None:
    """The rival: one `INSERT … ON CONFLICT` a record, in one transaction a batch."""
    now = datetime.now(timezone.utc)
    mark = "?" if ledger._engine.dialect.name == "sqlite" else "%s"
    later = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
    statement = (
        f"INSERT INTO celery_task ({', '.join(COLUMNS)}) VALUES "
        f"({', '.join([mark] * len(COLUMNS))}) ON CONFLICT (task_id) DO UPDATE SET {later} "
        "WHERE excluded.retries > celery_task.retries"
    )
    rows = list(zip(*columns_of(merge(records, now), now), strict=True))
    connection = ledger._engine.raw_connection()
    try:
        cursor = connection.cursor()
        if mark == "?":
            cursor.execute("BEGIN IMMEDIATE")
            rows = [tuple(str(v) if isinstance(v, datetime) else v for v in row) for row in rows]
        for row in rows:
            cursor.execute(statement, row)
        connection.commit()
    finally:
        connection.close()


def measure(write: Writer, url: str, count: int) -> tuple[float, float]:
    """Return rows/s and microseconds of Python CPU a row, into the empty database at `url`."""
    records = make_records(count)
    with Ledger(url) as ledger:
        ledger.upgrade()
        start, cpu = time.perf_counter(), time.process_time()
        for first in range(0, count, BATCH):
            write(ledger, records[first : first + BATCH])
        took, cpu = time.perf_counter() - start, time.process_time() - cpu
        if len(ledger.find(limit=1)) != 1 or ledger.summary().total != count:
            raise AssertionError("rows are missing")
    return count / took, cpu / count * 1e6


@contextmanager
def fresh_database(url: str) -> Iterator[str]:
    """Give the URL of an empty database beside the one of `url`; drop it afterwards."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        with tempfile.TemporaryDirectory(dir=Path(address.database or ".").parent) as folder:
            yield f"sqlite:///{folder}/ledger.db"
        return
    name = f"benchmark_{uuid.uuid4().hex}"
    server = make_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield address.set(database=name).render_as_string(hide_password=False)
    finally:
        with server.connect() as connection:
            force = " WITH (FORCE)" if server.dialect.name == "postgresql" else ""
            connection.exec_driver_sql(f"DROP DATABASE {name}{force}")
        server.dispose()


def figures(rounds: int = 5, count: int = 10_000) -> list[Figure]:
    """Return the writer on PostgreSQL beside a writer of row by row."""

    def rate(write: Writer) -> float:
        with fresh_database(POSTGRESQL) as database:
            return measure(write, database, count)[0]

    return [
        pair(
            "the ledger's writes on PostgreSQL, batches of 500",
            "rows/s",
            lambda: rate(in_batches),
            lambda: rate(row_by_row),
            "row by row, one transaction a batch",
            rounds,
        )
    ]


def compare(url: str, count: int, runs: int) -> None:
    """Print the medians of both on the database of `url`."""
    print(f"{mask_url(url)}: {count} rows, median of {runs}")
    rivals: dict[str, Writer] = {"toolbox": in_batches, "row by row": row_by_row}
    if make_url(url).get_backend_name() in ("mysql", "mariadb"):
        del rivals["row by row"]  # another SQL
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for _ in range(runs):
        for name, write in rivals.items():
            with fresh_database(url) as database:
                found[name].append(measure(write, database, count))
    for name, figures in found.items():
        rate, cpu = (median(values) for values in zip(*figures, strict=True))
        slowest = min(rate for rate, _ in figures)
        print(
            f"  {name:<12} {rate:>9,.0f} rows/s (slowest {slowest:,.0f}), {cpu:5.1f} µs CPU a row"
        )


def main(arguments: Sequence[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", nargs="?", help="a database server or sqlite:///folder/any.db")
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for url in [given.url] if given.url else [POSTGRESQL, f"sqlite:///{folder}/any.db"]:
            compare(url, given.rows, given.runs)


if __name__ == "__main__":
    main()
