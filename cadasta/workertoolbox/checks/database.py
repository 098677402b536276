"""What can be wrong with a deployment's database, and with the monitor that writes to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from typing import Any

from sqlalchemy import Engine, Table, delete, func, insert, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from ..brokers.kinds import broker_of_connection
from ..errors import ToolboxError
from ..ledger.ledger import Ledger
from ..messages.policy import records_ignored
from ..plain.urls import database_url, mask_url
from ..publishing.probe import MONITOR_KEY, publish_probe
from ..sql import migrations
from ..sql.engines import TIMEOUT, make_engine
from ..sql.failures import brief, is_forbidden
from ..sql.result_tables import ResultTables
from ..sql.tables import task
from .findings import Finding, error, ok, warning

#: The id of rows that are written and rolled back.
PROBE_ID = "workertoolbox-check"
#: Results that are looked at for their format.
NEWEST = 200
#: Tasks that are looked at for results that are ignored.
NEWEST_TASKS = 10_000


class _RollBack(Exception):
    """Ends a transaction that was only tried."""


def check_database(app: Any) -> Iterator[Finding]:
    """Connect to the databases of the results and of the ledger, and try what is needed there."""
    conf = app.conf
    results = database_url(conf.result_backend or "")
    ledger = conf.get("LEDGER_URL") or results
    if ledger is None:
        yield error("ledger", "no database is named", "set LEDGER_URL, or an SQL result backend")
        return
    if results is None:
        yield warning(
            "results", "in no SQL database: the ledger cannot show outcomes", "use toolbox+…"
        )
    else:
        places = ResultTables.from_conf(conf)
        check = _results if places.are_celerys else _renamed_results
        look = partial(check, tables=[places.task_table(), places.group_table()])
        yield from _checked(app, results, "results", look, places.are_celerys)
    look = partial(_ledger, tells=records_ignored(conf))
    yield from _checked(app, database_url(ledger) or ledger, "ledger", look)


def _checked(
    app: Any, url: str, subject: str, look: Any, has_version: bool = True
) -> Iterator[Finding]:
    try:
        engine = make_engine(url, timeout=app.conf.get("DATABASE_TIMEOUT", TIMEOUT))
    except ToolboxError as exc:
        yield error(subject, exc, "correct the URL")
        return
    try:
        version = migrations.current(engine)
        yield ok(subject, f"reachable: {mask_url(url)}")
        if has_version:
            yield from _version(engine, version, subject)
            if version is None and not migrations.are_usable(engine):
                return
        yield from look(engine)
    except ToolboxError as exc:
        yield error(subject, exc, "start the database, and check its URL, password and network")
    except SQLAlchemyError as exc:
        yield error(subject, brief(exc), "see the database's log")
    finally:
        engine.dispose()


def _version(engine: Engine, version: str | None, subject: str) -> Iterator[Finding]:
    if version is None and not migrations.are_usable(engine):
        yield error(subject, "its tables are missing", "run `celery -A proj ledger upgrade`")
    elif version is None:
        yield warning(
            subject,
            "this database role may not read the version of its tables",
            f"GRANT SELECT ON {migrations.VERSION_TABLE} to it",
        )
    elif version < migrations.HEAD:
        yield error(
            subject,
            f"its tables are at {version}, not {migrations.HEAD}",
            "run `celery -A proj ledger upgrade` as the tables' owner",
        )


def _renamed_results(engine: Engine, tables: list[Table]) -> Iterator[Finding]:
    inspector = inspect(engine)
    missing = [
        table for table in tables if not inspector.has_table(table.name, schema=table.schema)
    ]
    if missing:
        yield warning(
            "results",
            f"{_names(missing)}: not there, or not to be seen by this database role",
            "store a result: the first one makes them, where the worker's role may",
        )
    else:
        yield from _results(engine, tables)


def _names(tables: list[Table]) -> str:
    return ", ".join(table.fullname for table in tables)


def _results(engine: Engine, tables: list[Table]) -> Iterator[Finding]:
    results, groups = tables
    row = {"task_id": PROBE_ID, "status": "STARTED"}
    yield _rights(
        engine,
        "results",
        [
            insert(results).values(row),
            delete(results).where(results.c.task_id == PROBE_ID),
            insert(groups).values({"taskset_id": PROBE_ID}),
            delete(groups).where(groups.c.taskset_id == PROBE_ID),
        ],
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {_names(tables)}, celery_task_attempt, and USAGE "
        "on their sequences, to this role",
    )
    newest = select(results.c.result).where(results.c.date_done.is_not(None))
    with engine.connect() as connection:
        rows = connection.execute(newest.order_by(results.c.date_done.desc()).limit(NEWEST))
        pickled = sum(bytes(result or b"")[:1] == b"\x80" for (result,) in rows)
    if pickled:
        yield error(
            "results' format",
            f"{pickled} of the newest {NEWEST} are pickles, as Celery before 5.7 writes them",
            "run Celery 5.7 or later in every worker and client",
        )
    else:
        yield ok("results' format", "one and the same")


def _ledger(engine: Engine, tells: bool) -> Iterator[Finding]:
    now = datetime.now(timezone.utc)
    row = {
        "task_id": PROBE_ID,
        "name": "check",
        **dict.fromkeys(("published_at", "last_published_at", "recorded_at"), now),
        **dict.fromkeys(("args_truncated", "ignore_result"), False),
        **dict.fromkeys(("retries", "replacements", "publications"), 0),
    }
    yield _rights(
        engine,
        "ledger",
        [insert(task).values(row)],
        "GRANT SELECT, INSERT, UPDATE ON celery_task, celery_task_undecodable to this role",
    )
    if not tells:
        yield _untold(engine)


def _untold(engine: Engine) -> Finding:
    """Count the tasks whose outcome nobody will know."""
    newest = select(task.c.ignore_result).order_by(task.c.published_at.desc()).limit(NEWEST_TASKS)
    shown = newest.subquery()
    ignored = select(func.count()).select_from(shown).where(shown.c.ignore_result.is_(True))
    with engine.connect() as connection:
        count = connection.scalar(ignored) or 0
    subject = "ignored results"
    if not count:
        return ok(subject, f"none of the newest {NEWEST_TASKS:,} tasks ignores its result")
    return warning(
        subject,
        f"{count:,} of the newest {NEWEST_TASKS:,} tasks ignore their result: how they ended is "
        "not recorded (IGNORED)",
        "use the toolbox's result backend (toolbox+…) with RECORD_IGNORED",
    )


def _rights(engine: Engine, subject: str, statements: list[Any], remedy: str) -> Finding:
    """Try statements and roll them back."""
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(statement)
            raise _RollBack
    except _RollBack:
        return ok(f"rights on the {subject}", "sufficient")
    except SQLAlchemyError as exc:
        if not is_forbidden(exc):
            raise
        return error(f"rights on the {subject}", brief(exc), remedy)


def check_monitor(app: Any, timeout: float) -> Finding:
    """Publish a message that the monitor queue alone gets, and wait for it in the ledger."""
    subject = "monitor"
    try:
        with Ledger.from_app(app, upgrade=False) as ledger:
            start = time.monotonic()
            task_id = publish_probe(app, MONITOR_KEY)
            while time.monotonic() - start < timeout:
                recorded = ledger.get(task_id)
                if recorded is not None:
                    lag = (recorded.recorded_at - recorded.published_at).total_seconds()
                    return ok(subject, f"it records; {max(lag, 0):.1f} s behind")
                time.sleep(0.1)
    except Exception as exc:  # of the broker or the database, both told of above
        return error(subject, exc, "see the findings on broker and ledger")
    return error(
        subject,
        f"a message was not recorded within {timeout:g} s; {_waiting(app):,} messages wait",
        "start one: celery -A proj monitor; if one runs, see its log, or wait longer (--timeout)",
    )


def _waiting(app: Any) -> int:
    with app.connection_for_read() as connection:
        broker = broker_of_connection(connection)
        return broker.length(connection, app.conf.task_routes.monitor)
