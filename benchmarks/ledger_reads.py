"""The ledger's questions over a million tasks with results in PostgreSQL, and a large prune.

``python -m benchmarks.ledger_reads [--tasks N]``. Each figure is a median in milliseconds, beside
what is asked for. The database is made for the run and dropped afterwards.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from statistics import median
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.common import Figure, show
from benchmarks.ledger_writes import POSTGRESQL, fresh_database, make_records
from cadasta.workertoolbox import Ledger
from cadasta.workertoolbox.sql.engines import make_engine

DAYS = 30
WORKFLOW = 1000
TURNS = 15

#: Tasks over the last 30 days: twenty names, one in ten with a tenant, one in a hundred failed,
#: one in a thousand without a result.
TASKS = """
INSERT INTO celery_task (task_id, name, queue, root_id, args_truncated, retries, replacements,
    publications, ignore_result, headers, published_at, last_published_at, recorded_at,
    args, kwargs)
SELECT 'task-' || n, 'export.kind' || n % 20, 'export', 'task-' || n, false, 0, 0, 1, false,
    CASE WHEN n % 10 = 0 THEN jsonb_build_object('tenant', n % 1000) END, at, at, at,
    '[1,"two"]', '{}'
FROM (SELECT n, now() - n * interval '1 second' * (86400.0 * :days / :tasks) AS at
      FROM generate_series(1, :tasks) n) AS made
"""
RESULTS = """
INSERT INTO celery_taskmeta (id, task_id, status, result, date_done, name, worker, retries,
    date_started, runtime)
SELECT nextval('task_id_sequence'), task_id,
    CASE WHEN n % 100 = 0 THEN 'FAILURE' ELSE 'SUCCESS' END, '42',
    at + interval '2 seconds', name, 'celery@here', 0, at + interval '1 second', 1.0
FROM (SELECT row_number() OVER () AS n, task_id, name, published_at AT TIME ZONE 'UTC' AS at
      FROM celery_task) AS known
WHERE n % 1000 <> 7
"""


def fill(engine: Engine, tasks: int) -> None:
    """Make the tasks, their results, and one workflow of a thousand."""
    with engine.begin() as connection:
        connection.execute(text(TASKS), {"tasks": tasks, "days": DAYS})
        connection.execute(text(RESULTS))
        connection.execute(
            text(
                "UPDATE celery_task SET root_id = 'task-1', parent_id = 'task-' ||"
                " (substr(task_id, 6)::int + 1) / 2 WHERE task_id IN"
                " (SELECT 'task-' || n FROM generate_series(2, :size) n)"
            ),
            {"size": WORKFLOW},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def timed(ask: Callable[[], object], turns: int = TURNS) -> float:
    """Return the median time in milliseconds."""
    ask()
    found = []
    for _ in range(turns):
        start = time.perf_counter()
        ask()
        found.append((time.perf_counter() - start) * 1000)
    return median(found)


def deep(ledger: Ledger, wanted: dict[str, Any], pages: int = 100) -> float:
    """Return the median time of a page, from the first to the hundredth."""
    after: str | None = None
    found = []
    for _ in range(pages):
        start = time.perf_counter()
        page = ledger.find(limit=50, after=after, **wanted)
        found.append((time.perf_counter() - start) * 1000)
        after = page.next
        if after is None:
            break
    return median(found)


def longest_delay_while_pruning(ledger: Ledger, url: str) -> float:
    """Prune half of the tasks; return the milliseconds of a monitor's slowest batch meanwhile."""
    worst, done = [0.0], threading.Event()

    def write() -> None:
        with Ledger(url) as monitor:
            while not done.is_set():
                records = make_records(50)
                start = time.perf_counter()
                monitor.record(records)
                worst[0] = max(worst[0], (time.perf_counter() - start) * 1000)
                time.sleep(0.02)

    thread = threading.Thread(target=write)
    thread.start()
    ledger.prune(timedelta(days=DAYS / 2), include_unfinished=True)
    done.set()
    thread.join()
    return worst[0]


def figures(tasks: int = 1_000_000, with_prune: bool = True) -> list[Figure]:
    """Return all medians beside what is asked for."""
    with fresh_database(POSTGRESQL) as url, Ledger(url) as ledger:
        ledger.upgrade()
        engine = make_engine(url)
        fill(engine, tasks)
        engine.dispose()
        found = [*_pages(ledger), *_others(ledger)]
        if with_prune:
            delay = longest_delay_while_pruning(ledger, url)
            found.append(
                _figure(f"monitor's slowest batch, {tasks // 2:,} tasks pruned", delay, 1000, 1)
            )
        return found


def _pages(ledger: Ledger) -> list[Figure]:
    now = datetime.now(timezone.utc)
    kinds: dict[str, dict[str, Any]] = {
        "state FAILURE, 1 in 100": {"state": "FAILURE"},
        "state PENDING, 1 in 1,000": {"state": "PENDING"},
        "state SUCCESS": {"state": "SUCCESS"},
        "name prefix": {"name": "export.kind1*"},
        "header": {"headers": {"tenant": 500}},
        "time": {"since": now - timedelta(days=20), "until": now - timedelta(days=9)},
    }
    return [
        _figure(f"100 pages by {name}", deep(ledger, one), 50, 100) for name, one in kinds.items()
    ]


def _others(ledger: Ledger) -> list[Figure]:
    found = ledger.workflow("task-1")
    if found is None or len(found.tasks) != WORKFLOW:
        raise AssertionError("the workflow is not whole")
    hour = timedelta(hours=1)
    since = datetime.now(timezone.utc) - hour
    return [
        _figure("workflow of 1,000 tasks", timed(lambda: ledger.workflow("task-1")), 100),
        _figure("summary of the last hour", timed(lambda: ledger.summary(since)), 200),
        _figure("a page of unfinished tasks", timed(lambda: ledger.unfinished(hour)), 1000),
    ]


def _figure(what: str, ours: float, asked: float, turns: int = TURNS) -> Figure:
    return Figure(what, "ms", ours, asked, "what is asked for", ours / asked, turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--no-prune", action="store_true")
    given = parser.parse_args()
    show(figures(given.tasks, with_prune=not given.no_prune))


if __name__ == "__main__":
    main()
