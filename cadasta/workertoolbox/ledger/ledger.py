"""The ledger: every scheduled task and its outcome, written by the monitor, read by anyone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import Any

from sqlalchemy import Engine, Select, func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from ..errors import LedgerError
from ..messages.decoding import TaskRecord
from ..messages.policy import records_ignored
from ..plain.urls import database_url, mask_url
from ..sql import dialects, migrations
from ..sql.engines import TIMEOUT, hurry, make_engine, same_database
from ..sql.failures import ledger_error
from ..sql.fitting import key
from ..sql.result_tables import ResultTables
from ..sql.tables import task
from . import queries
from .model import (
    Attempt,
    NameSummary,
    Node,
    Page,
    Percentiles,
    Summary,
    Task,
    Undecodable,
    Workflow,
)
from .query import Query, aware
from .recorder import Recorder
from .results import Results
from .retention import Progress, Pruning
from .workflow import build_workflow

__all__ = [
    "NO_RESULTS",
    "Ledger",
    "NameSummary",
    "Node",
    "Page",
    "Percentiles",
    "Summary",
    "Task",
    "Undecodable",
    "Workflow",
]

NO_RESULTS = ""  #: As ``results_url``: the results are in no SQL database.
MAX_LIMIT = 10_000  #: The largest ``limit`` of a page.


class Ledger:
    """The table of all scheduled tasks, with their results where these are in SQL as well.

    Nothing is read or written before the first call, which also makes the tables where they
    are missing, unless ``upgrade`` is False. Safe to share between threads, and across a fork.

    Args:
        url: the SQLAlchemy URL of the ledger's database.
        results_url: that of the results' database; None for the same one, :data:`NO_RESULTS`
            where they are in none.
        results_table: the name of Celery's result table.
        results_schema: its schema, where that is not the default one.
        groups_table, groups_schema: the same of Celery's table of group results.
        records_ignored: whether workers store how tasks end that ignore their result, as they do
            with the toolbox's result backend and ``RECORD_IGNORED``. With False such a task that
            has no outcome is IGNORED, not PENDING.
        timeout: seconds without an answer after which a database is given up; half of it for
            the connection in use, and half for a second one. A statement may take longer while
            the server answers. None: never.
        upgrade: let the first call make the tables, or bring them up to date. A reader says False:
            then nothing but :meth:`upgrade` changes a table, and each other call raises
            :class:`LedgerError` where they are missing or older than the code. A role that has no
            other right than SELECT will do.

    Raises:
        LedgerError: a URL is none, or its driver is not installed. Each method raises it where
            the database cannot be reached, read or written, or an argument cannot work.
    """

    def __init__(
        self,
        url: str,
        results_url: str | None = None,
        *,
        results_table: str = "celery_taskmeta",
        results_schema: str | None = None,
        groups_table: str = "celery_tasksetmeta",
        groups_schema: str | None = None,
        records_ignored: bool = True,
        timeout: float | None = TIMEOUT,
        upgrade: bool = True,
    ) -> None:
        self._engine = make_engine(url, timeout=timeout)
        if dialects.find(self._engine) is None:
            raise LedgerError(
                f"The ledger cannot be kept in {mask_url(url)!r}: use PostgreSQL, SQLite, MySQL "
                "or MariaDB."
            )
        self._recorder = Recorder(self._engine)
        engine: Engine | None = None
        if results_url is None or (results_url and same_database(url, results_url)):
            engine = self._engine
        elif results_url:
            engine = make_engine(results_url, timeout=timeout)
        places = ResultTables(results_table, results_schema, groups_table, groups_schema)
        self._results = Results(self._engine, engine, places)
        self._untold = not records_ignored
        self._upgrades = upgrade
        self._is_ready = False

    @classmethod
    def from_app(cls, app: Any, *, upgrade: bool = True) -> Ledger:
        """Return the ledger of a Celery app: of ``LEDGER_URL``, else of its result backend.

        Args:
            app: the Celery app.
            upgrade: False for a reader, which never changes a table; see :class:`Ledger`.

        Raises:
            LedgerError: neither names an SQL database.
        """
        conf = app.conf
        backend = conf.get("result_backend")
        results = database_url(backend) if isinstance(backend, str) else None
        if results is None and backend in ("db", "database"):
            results = conf.get("database_url")
        url = conf.get("LEDGER_URL") or results
        if not url:
            raise LedgerError(
                "No database is named for the ledger: set LEDGER_URL (environment: "
                "CELERY_LEDGER_URL), or a result backend such as toolbox+postgresql://… ."
            )
        places = ResultTables.from_conf(conf)
        return cls(
            database_url(url) or url,
            (results or NO_RESULTS) if conf.get("LEDGER_URL") else None,
            results_table=places.task,
            results_schema=places.task_schema,
            groups_table=places.group,
            groups_schema=places.group_schema,
            records_ignored=records_ignored(conf),
            timeout=conf.get("DATABASE_TIMEOUT", TIMEOUT),
            upgrade=upgrade,
        )

    def hurry(self, is_urgent: bool = True) -> None:
        """Wait no longer than a few seconds for a database that does not answer; False: as ever."""
        hurry(self._engine, is_urgent)

    def close(self) -> None:
        """Close the database connections; the next call would open new ones."""
        self._engine.dispose()
        self._results.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Ledger {mask_url(self._engine.url.render_as_string())}>"

    # -- writing ------------------------------------------------------------------------------

    def upgrade(self) -> list[str]:
        """Make the tables, or bring them up to date; return the names of the steps applied."""
        applied = migrations.upgrade(self._engine)
        self._is_ready = True
        return applied

    def record(self, records: Iterable[TaskRecord]) -> None:
        """Write a batch in one statement and one transaction; safe to repeat.

        A later publication of a task (more replacements, more retries, or a later time) replaces
        what is known of it; any other adds to the count of publications alone. A record that
        the database refuses is set aside in ``celery_task_undecodable``, the others are written.
        """
        self._make_ready()
        self._recorder.record(list(records))

    def record_undecodable(self, items: Iterable[Undecodable]) -> None:
        """Write messages that are no task messages; each digest once."""
        self._make_ready()
        self._recorder.record_undecodable(list(items))

    def prune(
        self,
        older_than: timedelta,
        keep_failures: bool = False,
        batch: int = 1000,
        on_progress: Progress | None = None,
        *,
        include_unfinished: bool = False,
    ) -> int:
        """Delete what was last published before now - ``older_than``; return how many tasks.

        The tasks' results go with them where they are in the same database and the role may
        delete them. So do results of that age whose task was never recorded (Celery stores the
        failure of a chain for each of its later tasks, which it never publishes), group results
        and undecodable messages. Where no task of the last hour is recorded, the monitor may be
        behind: then results without a task go only if they are an hour older than the newest
        recorded publication. A task that ignores its result and has no outcome counts as finished.

        Args:
            keep_failures: keep failed tasks, results that are failures, and undecodable messages.
            batch: how many tasks, or rows, a transaction looks at and deletes at most.
            on_progress: called after each batch with the numbers of tasks looked at and of all.
            include_unfinished: delete tasks without a final result as well.
        """
        before, size = _ago(older_than), _checked_limit(batch)
        if not self._results.are_known and (keep_failures or not include_unfinished):
            raise LedgerError(
                "The results are in no SQL database, so that nobody knows which tasks are "
                "finished: prune with include_unfinished=True and keep_failures=False."
            )
        with self._using("prune the ledger"):
            return Pruning(
                self._engine,
                self._results,
                before,
                keep_failures=keep_failures,
                include_unfinished=include_unfinished,
                batch=size,
                on_progress=on_progress,
            ).run()

    # -- reading ------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task | None:
        """Return one task with its outcome, or None if it was never recorded."""
        with self._using("read the ledger"):
            tasks = self._read(self._tasks().where(task.c.task_id == key(task_id)))
        return tasks[0] if tasks else None

    def attempts(self, task_id: str) -> tuple[Attempt, ...]:
        """Return the runs of a task that have ended, the first one first.

        The toolbox's result backend keeps them: with another one there is at most the last.
        Of a task with more than 100 retries, the later ones but the last are left out.
        """
        with self._using("read the ledger"):
            kept = self._results.attempts(key(task_id))
        if kept and kept[-1].state != "RETRY":
            return kept
        last = self.get(task_id)
        if last is None or not last.is_final:
            return kept
        return (
            *kept,
            Attempt(
                last.retries,
                last.state,
                last.worker,
                last.date_started,
                last.date_done,
                last.ran,
                None if last.state == "SUCCESS" else str(last.result),
            ),
        )

    def find(
        self,
        query: Query | None = None,
        *,
        state: str | Iterable[str] | None = None,
        name: str | None = None,
        queue: str | None = None,
        root_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        headers: Mapping[str, Any] | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page:
        """Return a page of the tasks that meet all conditions, newest publication first.

        Args:
            query: the conditions as one value, in place of those that follow.
            state: one state or several, such as ``PENDING`` (no result yet) or ``FAILURE``.
            name: the task's name; ``*`` in it stands for any characters.
            queue: the queue that it was published to.
            root_id: the workflow's first task, which is a member itself.
            since, until: first published at or after, and before; aware.
            headers: values that the custom headers contain; nested as well.
            limit: at most so many tasks, 1 to 10,000.
            after: the ``next`` of the page before.
        """
        size = _checked_limit(limit)
        place = None if after is None else queries.read_cursor(after)
        states = (state,) if isinstance(state, str) else tuple(state or ())
        conditions = (states, name, queue, root_id, since, until, headers)
        if query is not None:
            if any(condition not in (None, ()) for condition in conditions):
                raise LedgerError(
                    "find() takes a query or conditions, not both: give the query all of them."
                )
        elif "" in (*states, name, queue, root_id):
            return Page(())  # what is empty is nothing that a task has
        else:
            query = Query(
                states=states,
                names=name,
                queues=queue,
                root_id=root_id,
                since=since,
                until=until,
                headers=headers or None,
            )
        return self._find(query, size, place)

    def iterate(self, query: Query, *, batch: int = 1000) -> Iterator[Task]:
        """Give all tasks that meet a query's conditions, newest publication first.

        They are read page by page, each by an index from where the one before ended, so that
        neither memory nor the database's work grows with their number. What is published meanwhile
        is not among them.

        :param batch: how many are read at a time, 1 to 10,000.
        """
        return self._iterate(query, _checked_limit(batch))

    def _iterate(self, query: Query, size: int) -> Iterator[Task]:
        page = self._find(query, size, None)
        yield from page
        while page.next is not None:
            page = self._find(query, size, queries.read_cursor(page.next))
            yield from page

    def count(self, query: Query) -> int:
        """Return how many tasks meet a query's conditions; without any, how many there are."""
        with self._using("read the ledger"):
            if query.asks_results:
                tasks = self._tasks(query.states)
            else:
                tasks = queries.tasks(None, self._results.dialect)
            statement = self._filtered(tasks, query).with_only_columns(
                func.count(), maintain_column_froms=True
            )
            with self._engine.connect() as connection:
                return connection.scalar(statement) or 0

    def unfinished(
        self, older_than: timedelta, *, limit: int = 50, after: str | None = None
    ) -> Page:
        """Return a page of tasks without a final result that should have one: lost or stuck.

        Their latest publication (a retry is one) and their ETA are at least ``older_than`` ago.
        Tasks that expired before a worker began them are none of these: see
        :attr:`Task.has_expired`.
        """
        before, size = _ago(older_than), _checked_limit(limit)
        place = None if after is None else queries.read_cursor(after)
        with self._using("read the ledger"):
            return self._page(self._unfinished(self._tasks(), before), size, place)

    def workflow(self, root_id: str) -> Workflow | None:
        """Return the whole workflow of a task (any of its tasks), or None if it is unknown."""
        root_id = key(root_id)
        with self._using("read the ledger"):
            with self._engine.connect() as connection:
                known = select(task.c.root_id).where(task.c.task_id == root_id)
                root_id = connection.scalar(known) or root_id
            members = self._read(self._tasks().where(queries.is_member(root_id)))
        return build_workflow(members, root_id)

    def summary(self, since: datetime | None = None) -> Summary:
        """Return counts by name and state, with waiting and running times, by name.

        ``celery.chord_unlock`` is counted once it has ended, never as unfinished.

        :param since: count only tasks first published at or after this moment; aware.
        """
        if since is not None:
            since = aware("since", since)
        with self._using("read the ledger"):
            results, dialect = self._results.required("count by state"), self._results.dialect
            with self._engine.connect() as connection:
                states: dict[str, dict[str, int]] = {}
                for name, state, count in connection.execute(
                    queries.counts(results, dialect, since, self._untold)
                ):
                    states.setdefault(name, {})[state] = count
                times: dict[str, dict[str, Percentiles]] = {"waiting": {}, "running": {}}
                for what, by_name in times.items():
                    statement = queries.percentiles(what, results, dialect, since)
                    if statement is not None:
                        for row in connection.execute(statement).mappings():
                            by_name[row["name"]] = queries.to_percentiles(row)
        unknown = Percentiles()
        return Summary(
            tuple(
                NameSummary(
                    name,
                    counts,
                    times["waiting"].get(name, unknown),
                    times["running"].get(name, unknown),
                )
                for name, counts in states.items()
            )
        )

    # -- the same for all ---------------------------------------------------------------------

    def _make_ready(self) -> None:
        if self._is_ready:
            return
        if self._upgrades:
            migrations.upgrade(self._engine)
        else:
            migrations.require(self._engine)
        self._is_ready = True

    @contextmanager
    def _using(self, doing: str) -> Iterator[None]:
        self._make_ready()
        try:
            yield
        except SQLAlchemyError as exc:
            raise ledger_error(exc, doing) from exc
        except ValueError as exc:  # the driver refuses text with NUL or lone surrogates
            raise LedgerError(f"Cannot {doing}: {exc}.") from exc

    def _tasks(self, states: Collection[str] = ()) -> Select[Any]:
        if not states:
            return queries.tasks(self._results.joined(), self._results.dialect)
        results = self._results.required("filter by state")
        dialect, untold = self._results.dialect, self._untold
        required = "SUCCESS" not in states and not queries.may_lack_result(states, untold)
        statement = queries.tasks(results, dialect, required=required)
        return statement.where(queries.in_states(results, dialect, states, untold))

    def _filtered(self, tasks: Select[Any], query: Query) -> Select[Any]:
        """Return those of ``tasks`` that meet a query's conditions but that on the state."""
        dialect = self._results.dialect
        if query.names:
            tasks = tasks.where(or_(*(queries.is_named(name, dialect) for name in query.names)))
        if query.queues:
            # Not "IN", under which one queue would be read in another order than its index has.
            tasks = tasks.where(or_(*(task.c.queue == queue for queue in query.queues)))
        if query.root_id is not None:
            tasks = tasks.where(queries.is_member(key(query.root_id)))
        if query.parent_id is not None:
            tasks = tasks.where(task.c.parent_id == key(query.parent_id))
        if query.since is not None:
            tasks = tasks.where(task.c.published_at >= query.since)
        if query.until is not None:
            tasks = tasks.where(task.c.published_at < query.until)
        if query.headers:
            tasks = tasks.where(queries.has_headers(query.headers, dialect))
        if query.unfinished_for is not None:
            tasks = self._unfinished(tasks, _ago(query.unfinished_for))
        return tasks

    def _unfinished(self, tasks: Select[Any], before: datetime) -> Select[Any]:
        results = self._results.required("look for unfinished tasks")
        is_unfinished = queries.is_unfinished(results, self._results.dialect)
        may_start = queries.may_start(results, datetime.now(timezone.utc))
        return queries.overdue(tasks.where(is_unfinished, may_start), before)

    def _find(self, query: Query, size: int, place: tuple[datetime, str] | None) -> Page:
        with self._using("read the ledger"):
            return self._page(self._filtered(self._tasks(query.states), query), size, place)

    def _page(self, tasks: Select[Any], size: int, place: tuple[datetime, str] | None) -> Page:
        read = self._read(queries.page(tasks, size, place))
        shown = tuple(read[:size])
        return Page(shown, queries.make_cursor(shown[-1]) if len(read) > size else None)

    def _read(self, statement: Select[Any]) -> list[Task]:
        with self._engine.connect() as connection:
            if hint := self._results.dialect.page_hint:
                connection.exec_driver_sql(hint)
            rows = connection.execute(statement).mappings()
            tasks = [queries.to_task(row, self._untold) for row in rows]
        if self._results.are_joined or not self._results.are_known:
            return tasks
        outcomes = self._results.of([task.task_id for task in tasks])
        return [replace(task, **outcomes.get(task.task_id, {})) for task in tasks]


def _ago(older_than: timedelta) -> datetime:
    try:
        return datetime.now(timezone.utc) - older_than
    except (OverflowError, TypeError):
        raise LedgerError(f"older_than={older_than!r} is not an age: give a timedelta.") from None


def _checked_limit(limit: int) -> int:
    if not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise LedgerError(f"{limit!r} is not a number of tasks from 1 to {MAX_LIMIT:,}.")
    return limit
