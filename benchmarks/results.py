"""The result backend beside Celery's own and beside bare upserts; two writes a task.

And what it costs to record how a task ended that ignores its result, beside Celery, which does not.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import billiard
import psycopg2
from celery import Celery, states
from celery.app.trace import build_tracer
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import make_url

from benchmarks.common import Figure, pair
from benchmarks.ledger_writes import POSTGRESQL, fresh_database
from cadasta.workertoolbox.results.statements import Statements
from cadasta.workertoolbox.sql.dialects import PostgreSQL
from cadasta.workertoolbox.sql.engines import make_engine
from cadasta.workertoolbox.sql.migrations import upgrade
from cadasta.workertoolbox.sql.tables import taskmeta

TASKS = 400

Write = Callable[[str, str, Any], object]
#: What is done with one task, by its id.
Work = Callable[[str], object]


def request() -> Any:
    """What Celery passes of a running task."""
    return SimpleNamespace(
        task="export.pdf",
        args=[1, "two"],
        kwargs={"three": 3},
        hostname="celery@here",
        retries=0,
        delivery_info={"routing_key": "export"},
        children=[],
        stamps=None,
        stamped_headers=None,
        group=None,
    )


def through_backend(scheme: str, url: str) -> Write:
    """Store by a result backend of Celery."""
    app = Celery("benchmark", backend=f"{scheme}+{url}", set_as_current=False)
    app.conf.update(result_extended=True, database_create_tables_at_setup=False)
    backend, shared = app.backend, request()
    return lambda task_id, state, result: backend.store_result(
        task_id, result, state, request=shared
    )


def through_psycopg2(url: str) -> Write:
    """Store by the same upsert in autocommit, with values that are ready."""
    dialect = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]
    statements = Statements(PostgreSQL(), taskmeta, taskmeta.c.keys())
    sql = str(statements.finish.compile(dialect=dialect))
    row = {
        **dict.fromkeys(taskmeta.c.keys()),
        **{"result": b'{"pid": 1}', "name": "export.pdf", "args": b'[1, "two"]'},
        **{"kwargs": b'{"three": 3}', "worker": "celery@here", "retries": 0, "queue": "export"},
    }
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connections: list[Any] = []

    def write(task_id: str, state: str, result: Any) -> None:
        if not connections:
            connections.append(psycopg2.connect(plain))
            connections[0].autocommit = True
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        with connections[0].cursor() as cursor:
            values = {"task_id": task_id, "status": state, "date_done": now}
            cursor.execute(sql, {**row, **values})

    return write


def stored(write: Write) -> Work:
    """Return what stores one task's start and result."""

    def work(task_id: str) -> None:
        write(task_id, states.STARTED, {"pid": 1})
        write(task_id, states.SUCCESS, 42)

    return work


def ignoring(scheme: str, url: str) -> Work:
    """Return what runs one task that ignores its result, by Celery's own tracer."""
    app = Celery("benchmark", backend=f"{scheme}+{url}", set_as_current=False)
    app.conf.update(result_extended=True, database_create_tables_at_setup=False)

    def nothing() -> None: ...

    task = app.task(nothing, name="export.pdf", ignore_result=True, shared=False)
    trace = build_tracer(task.name, task, app=app)
    fields = {"task": task.name, "hostname": "celery@here", "delivery_info": {}, "retries": 0}
    return lambda task_id: trace(task_id, (), {}, {**fields, "id": task_id})


def measure(work: Work, answer: Any) -> None:
    """Send tasks/s; runs in a process that billiard forked, as a worker's pool does."""
    for count in (5, TASKS):
        ids = [str(uuid.uuid4()) for _ in range(count)]
        start = time.perf_counter()
        for task_id in ids:
            work(task_id)
        took = time.perf_counter() - start
    answer.send(TASKS / took)


def in_a_pool_process(work: Work) -> Callable[[], float]:
    """Return a function that measures once, in a process forked from this one.

    Celery's own backend keeps its connection only where it was made before the fork.
    """

    def once() -> float:
        reader, writer = billiard.Pipe(duplex=False)
        process = billiard.Process(target=measure, args=(work, writer))
        process.start()
        found = float(reader.recv())
        process.join()
        return found

    return once


def figures(rounds: int = 5) -> list[Figure]:
    """Return all comparisons."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for url in (POSTGRESQL, f"sqlite:///{Path(folder) / 'any.db'}"):
            with fresh_database(url) as database:
                engine = make_engine(database)
                upgrade(engine)
                engine.dispose()
                found += _figures(database, rounds)
    return found


def _figures(url: str, rounds: int) -> list[Figure]:
    name = "SQLite" if url.startswith("sqlite") else "PostgreSQL"
    ours = in_a_pool_process(stored(through_backend("toolbox", url)))
    theirs = in_a_pool_process(stored(through_backend("db", url)))
    what = f"results on {name}, two writes a task"
    found = [pair(what, "tasks/s", ours, theirs, "Celery's db+ backend", rounds)]
    if name == "PostgreSQL":
        bare = in_a_pool_process(stored(through_psycopg2(url)))
        found.append(pair(what, "tasks/s", ours, bare, "bare psycopg2 upserts", rounds))
    ours, theirs = (in_a_pool_process(ignoring(scheme, url)) for scheme in ("toolbox", "db"))
    what = f"ignored results on {name}, recorded"
    found.append(pair(what, "tasks/s", ours, theirs, "Celery, which does not", rounds))
    return found


if __name__ == "__main__":
    from benchmarks.common import show

    show(figures())
