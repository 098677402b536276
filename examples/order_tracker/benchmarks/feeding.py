"""What a transition that frees a place costs, by the length of the backlog."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from order_tracker.backlog import NewUnit, add_units
from order_tracker.database import Database, utc_now
from order_tracker.feeding import lock_feed, top_up
from order_tracker.reports import Report, apply_report
from order_tracker.scratch import scratch_database
from order_tracker.tables import feed
from sqlalchemy import text, update

SHORT = 1_000
LONG = 100_000
ROUNDS = 400


class Line:
    """A backlog of so many units beside 50 in flight; its units are done in their order."""

    def __init__(self, url: str, backlog: int) -> None:
        self.database = Database(url)
        self.database.create_tables(50, 300)
        self.turn = 0
        self.times: list[float] = []
        with self.database.write() as connection:
            connection.execute(update(feed).values(going=True))
            state = lock_feed(connection)
            add_units(connection, (NewUnit() for _ in range(backlog + 50)), utc_now(), "benchmark")
            top_up(connection, state, utc_now(), "benchmark")
        with self.database.engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            if not self.database.is_sqlite:
                connection.execute(text("VACUUM ANALYZE"))

    def step(self) -> None:
        """Bring the next unit to its end, and time the report that frees its place."""
        self.turn += 1
        self._tell("processing")
        start = time.perf_counter()
        self._tell("success")
        self.times.append(time.perf_counter() - start)

    def _tell(self, status: str) -> None:
        with self.database.write() as connection:
            report = Report(self.turn, 1, status, "agent", "task")
            applied = apply_report(connection, report, utc_now(), "inbox")
        if not applied.steps or (status == "success" and len(applied.feedings) != 1):
            raise AssertionError(f"unit {self.turn}: {applied}")


@contextmanager
def _url(kind: str) -> Iterator[str]:
    if kind == "PostgreSQL":
        with scratch_database() as url:
            yield url
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/orders.sqlite3"


def cost(kind: str) -> tuple[float, float]:
    """Median seconds of a report with a short and with a long backlog, taken in turn."""
    with ExitStack() as stack:
        lines = []
        for backlog in (SHORT, LONG):
            line = Line(stack.enter_context(_url(kind)), backlog)
            stack.callback(line.database.close)
            lines.append(line)
        for _ in range(ROUNDS):
            for line in lines:
                line.step()
        short, long = (statistics.median(line.times) for line in lines)
        return short, long
