"""The ledger's questions as SQL, and rows as answers; nothing here talks to a database."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    DateTime,
    Float,
    FromClause,
    Integer,
    LargeBinary,
    RowMapping,
    Select,
    String,
    TableClause,
    Text,
    and_,
    bindparam,
    case,
    column,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    table,
)

from ..errors import LedgerError
from ..plain.json_text import load
from ..results.stored_values import describe_error
from ..sql.dialects import Dialect
from ..sql.tables import attempt, task
from .model import (
    CHORD_UNLOCK,
    FINAL_STATES,
    IGNORED,
    PENDING,
    WAITING_STATES,
    Percentiles,
    Task,
)

_JSON = frozenset({"args", "kwargs", "stamps", "headers", "properties"})
#: The result table's columns that a :class:`Task` shows; those of the second row are not in
#: tables that Celery made.
_RESULT_TYPES: Mapping[str, Any] = {
    **{"status": String(50), "result": LargeBinary(), "traceback": Text(), "date_done": DateTime()},
    **{"worker": String(155), "date_started": DateTime(), "runtime": Float(53)},
}


_EXCEPTION_STATES = frozenset({"FAILURE", "RETRY", "REVOKED"})
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def result_table(name: str, schema: str | None, columns: Iterable[str]) -> TableClause:
    """Return the result table with those of our columns that it has."""
    found = set(columns)
    known = [column(key, kind) for key, kind in _RESULT_TYPES.items() if key in found]
    key = column("task_id", String(155))
    return table(name, column("id", Integer()), key, *known, schema=schema)


def group_table(name: str, schema: str | None) -> TableClause:
    """Return the table of group results."""
    return table(name, column("id", Integer()), column("date_done", DateTime()), schema=schema)


def _shown(dialect: Dialect) -> list[ColumnElement[Any]]:
    return [dialect.json_as_text(c) if c.name in _JSON else c for c in task.c]


def _outcomes(results: TableClause | None) -> list[ColumnElement[Any]]:
    found: Mapping[str, Any] = {} if results is None else dict(results.c)
    return [
        (found[key] if key in found else null()).label("result_" + key) for key in _RESULT_TYPES
    ]


def tasks(results: TableClause | None, dialect: Dialect, required: bool = False) -> Select[Any]:
    """Return the selection of all tasks, with their results where the table is at hand.

    :param required: leave out tasks without a result, which lets the database begin there.
    """
    query = select(*_shown(dialect), *_outcomes(results))
    if results is None:
        return query
    same = _same_task(dialect, results, required)
    return query.select_from(task.join(results, same, isouter=not required))


def _same_task(
    dialect: Dialect, results: FromClause, required: bool = False
) -> ColumnElement[bool]:
    return dialect.same_task(task.c.task_id, results.c.task_id, results_first=required)


def results_of(results: TableClause, ids: Sequence[str]) -> Select[Any]:
    """Return the selection of the results of the tasks ``ids``."""
    return select(results.c.task_id, *_outcomes(results)).where(results.c.task_id.in_(ids))


def states_of(results: TableClause, ids: Sequence[str]) -> Select[Any]:
    """Return the selection of the states of the tasks ``ids``."""
    return select(results.c.task_id, results.c.status).where(results.c.task_id.in_(ids))


def attempt_table(schema: str | None) -> TableClause:
    """Return the table of attempts in the schema of the results."""
    return table(
        attempt.name, *(column(one.name, one.type) for one in attempt.columns), schema=schema
    )


def attempts_of(kept: TableClause, task_id: str) -> Select[Any]:
    """Return the selection of the fields of each :class:`~.model.Attempt` of a task."""
    fields = ("retries", "state", "worker", "started_at", "ended_at", "runtime", "error")
    chosen = select(*(kept.c[field] for field in fields)).where(kept.c.task_id == task_id)
    # Places below 0 are of messages that were delivered again, after a hard time limit.
    return chosen.order_by(kept.c.retries, kept.c.ended_at, kept.c.place)


def in_states(
    results: TableClause, dialect: Dialect, states: Iterable[str], untold: bool = False
) -> ColumnElement[bool]:
    """Return the condition that a task is in one of ``states``.

    :param untold: as for :func:`counts`.
    """
    wanted = sorted(set(states))
    if wanted == [PENDING]:
        # As an anti-join, which ends when the page is full; an outer join would read all.
        told = results.alias("told")
        is_told = and_(
            _same_task(dialect, told), told.c.status != literal(PENDING, literal_execute=True)
        )
        pending = ~select(literal_column("1")).select_from(told).where(is_told).exists()
        return and_(pending, task.c.ignore_result.is_(False)) if untold else pending
    status: ColumnElement[Any] = results.c.status
    if "SUCCESS" in wanted:
        # Nearly all tasks: SQLite must begin with the newest of them, not with the results. So
        # it may not see that the result is required.
        status = _state(results, untold)
    # Spelled out in the SQL, not as parameters: only then the sparse index on the state is used.
    condition: ColumnElement[bool] = status.in_(
        bindparam("states", wanted, expanding=True, literal_execute=True)
    )
    if "SUCCESS" in wanted:
        return condition
    if may_lack_result(wanted, untold):
        absent: ColumnElement[bool] = status.is_(None)
        if untold and not {PENDING, IGNORED} <= set(wanted):
            absent = and_(absent, task.c.ignore_result.is_(IGNORED in wanted))
        return or_(absent, condition)
    return dialect.by_sparse_index(status != literal("SUCCESS", literal_execute=True), condition)


def may_lack_result(states: Iterable[str], untold: bool) -> bool:
    """Tell whether a task without a result may be in one of ``states``."""
    return not {PENDING, *([IGNORED] if untold else [])}.isdisjoint(states)


def _state(results: TableClause, untold: bool) -> ColumnElement[Any]:
    pending = literal(PENDING, literal_execute=True)
    if not untold:
        return func.coalesce(results.c.status, pending)
    ignored = literal(IGNORED, literal_execute=True)
    absent = case((task.c.ignore_result.is_(True), ignored), else_=pending)
    return func.coalesce(results.c.status, absent)


def is_unfinished(results: TableClause, dialect: Dialect) -> ColumnElement[bool]:
    """Return the condition that a task has no final result."""
    told = results.alias("told")
    is_done = and_(_same_task(dialect, told), told.c.status.in_(_final()))
    done = select(literal_column("1")).select_from(told).where(is_done).exists()
    return and_(~done, or_(task.c.ignore_result.is_(False), results.c.status.is_not(None)))


def may_start(results: TableClause, now: datetime) -> ColumnElement[bool]:
    """Return the condition that a task has begun, or has not expired before it could."""
    waits: BindParameter[Any] = bindparam(
        "waiting", sorted(WAITING_STATES), expanding=True, literal_execute=True
    )
    # A NULL where there is no result makes this one NULL, which is no answer to "or" either.
    return or_(task.c.expires.is_(None), task.c.expires >= now, results.c.status.not_in(waits))


def _final() -> BindParameter[Any]:
    return bindparam("final", sorted(FINAL_STATES), expanding=True, literal_execute=True)


def is_named(name: str, dialect: Dialect) -> ColumnElement[bool]:
    """Return the condition on the name: exact, or with ``*`` for any characters."""
    return dialect.matches(task.c.name, name) if "*" in name else task.c.name == name


def is_member(root_id: str) -> ColumnElement[bool]:
    """Return the condition that a task belongs to the workflow of ``root_id``."""
    # In two parts, since the index on the root leaves out tasks that are their own.
    others = and_(task.c.root_id == root_id, task.c.root_id != task.c.task_id)
    return or_(task.c.task_id == root_id, others)


def has_headers(headers: Mapping[str, Any], dialect: Dialect) -> ColumnElement[bool]:
    """Return the condition that the custom headers contain ``headers``."""
    return dialect.contains(task.c.headers, headers)


def page(query: Select[Any], limit: int, after: tuple[datetime, str] | None) -> Select[Any]:
    """Return ``query`` newest first, from ``after`` on, with one row more than ``limit``."""
    if after is not None:
        moment, task_id = after
        # Not as one comparison of two pairs: MySQL would not use the index for it.
        query = query.where(
            task.c.published_at <= moment,
            or_(task.c.published_at < moment, task.c.task_id < task_id),
        )
    newest = (task.c.published_at.desc(), task.c.task_id.desc())
    return query.order_by(*newest).limit(limit + 1)


def overdue(query: Select[Any], before: datetime) -> Select[Any]:
    """Return those of ``query`` last published, and due, before that moment."""
    return query.where(
        task.c.published_at < before,
        task.c.last_published_at < before,
        or_(task.c.eta.is_(None), task.c.eta < before),
    )


def counts(
    results: TableClause, dialect: Dialect, since: datetime | None, untold: bool
) -> Select[Any]:
    """Return the selection of name, state and count.

    What waits for a chord's members is counted when it has ended: until then its members are what
    is unfinished.

    :param untold: whether a task that ignores its result and has none is IGNORED, not PENDING,
        since nobody records how such tasks end.
    """
    state = _state(results, untold)
    query = select(task.c.name, state.label("state"), func.count().label("count"))
    query = _since(_joined(query, results, dialect), since)
    query = query.where(or_(task.c.name != CHORD_UNLOCK, state.in_(_final())))
    return query.group_by(task.c.name, state).order_by(task.c.name, state)


def percentiles(
    what: str, results: TableClause, dialect: Dialect, since: datetime | None
) -> Select[Any] | None:
    """Return the selection of name and 3 percentiles in seconds of ``waiting`` or ``running``.

    None where the result table lacks the columns. By nearest rank, since only PostgreSQL has
    functions for it that can be grouped.
    """
    columns = results.c
    if what == "waiting":
        if "date_started" not in columns:
            return None
        due = case(
            (task.c.eta > task.c.last_published_at, task.c.eta), else_=task.c.last_published_at
        )
        waited = dialect.seconds(due, columns.date_started)
        seconds: ColumnElement[Any] = case((waited < 0, literal_column("0.0", Float)), else_=waited)
    elif "runtime" in columns:
        seconds = columns.runtime
    elif "date_started" in columns:
        seconds = dialect.seconds(columns.date_started, columns.date_done)
    else:
        return None
    query: Select[Any] = select(
        task.c.name,
        seconds.label("seconds"),
        func.row_number().over(partition_by=task.c.name, order_by=seconds).label("place"),
        func.count().over(partition_by=task.c.name).label("of"),
    )
    query = _since(_joined(query, results, dialect), since).where(seconds.is_not(None))
    if what == "running":
        query = query.where(results.c.status.in_(["SUCCESS", "FAILURE"]))
    else:  # of a task that waits for its retry only the start before is known
        query = query.where(results.c.status != "RETRY")
    known = query.subquery()
    return select(
        known.c.name,
        *[
            func.min(case((known.c.place >= known.c.of * share, known.c.seconds))).label(label)
            for label, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        ],
    ).group_by(known.c.name)


def _joined(query: Select[Any], results: TableClause, dialect: Dialect) -> Select[Any]:
    return query.select_from(task.outerjoin(results, _same_task(dialect, results)))


def _since(query: Select[Any], since: datetime | None) -> Select[Any]:
    return query if since is None else query.where(task.c.published_at >= since)


def expired(before: datetime, batch: int | None, after: tuple[datetime, str] | None) -> Select[Any]:
    """Return the selection of the next ``batch`` tasks last published before, oldest first."""
    columns = (
        task.c.task_id,
        task.c.published_at,
        task.c.ignore_result,
        task.c.eta,
        task.c.expires,
    )
    query = select(*columns).where(task.c.published_at < before, task.c.last_published_at < before)
    if after is not None:
        moment, task_id = after
        query = query.where(
            task.c.published_at >= moment,
            or_(task.c.published_at > moment, task.c.task_id > task_id),
        )
    return query.order_by(task.c.published_at, task.c.task_id).limit(batch)


def newest(now: datetime) -> Select[Any]:
    """Return the selection of when the newest task was published, whose clock was not ahead."""
    return select(func.max(task.c.published_at)).where(task.c.published_at <= now)


def aged(
    columns: Sequence[ColumnElement[Any]],
    order: Sequence[ColumnElement[Any]],
    condition: ColumnElement[bool],
    after: Sequence[Any] | None,
    size: int,
) -> Select[Any]:
    """Return the selection of the next ``size`` rows in the order of one or two columns.

    :param after: the values of ``order`` in the last row of the batch before.
    """
    query = select(*columns, *order).where(condition)
    if after is not None:
        first, *rest = order
        if rest:  # as in :func:`page`
            later: ColumnElement[bool] = or_(first > after[0], rest[0] > after[1])
            query = query.where(first >= after[0], later)
        else:
            query = query.where(first > after[0])
    return query.order_by(*order).limit(size)


def naive(moment: datetime) -> datetime:
    """Return a moment as Celery's columns have it: in UTC, without saying so."""
    return moment.astimezone(timezone.utc).replace(tzinfo=None)


def recorded(ids: Sequence[str]) -> Select[Any]:
    """Return the selection of those of ``ids`` that the ledger has."""
    return select(task.c.task_id).where(task.c.task_id.in_(ids))


def to_task(row: RowMapping, untold: bool) -> Task:
    """Return the task of a row of :func:`tasks`; ``untold`` as for :func:`counts`."""
    fields = {c.name: row[c.name] for c in task.c}
    for key in _JSON:
        fields[key] = load(fields[key])
    for key in ("stamps", "headers", "properties"):
        fields[key] = fields[key] or {}
    fields["args_truncated"] = bool(fields["args_truncated"])
    absent = IGNORED if untold and fields["ignore_result"] else PENDING
    return Task(**fields, **to_outcome(row, absent))


def to_outcome(row: RowMapping, absent: str = PENDING) -> dict[str, Any]:
    """Return the fields of :class:`Task` that the result in a row gives.

    :param absent: the state where there is none.
    """
    state = row["result_status"] or absent
    result = load(row["result_result"])
    return {
        "state": state,
        "result": _error(result) if state in _EXCEPTION_STATES else result,
        "traceback": row["result_traceback"],
        "worker": row["result_worker"],
        "date_done": _utc(row["result_date_done"]),
        "date_started": _utc(row["result_date_started"]),
        "runtime": row["result_runtime"],
    }


def _utc(value: datetime | None) -> datetime | None:
    if value is None or value.tzinfo is not None:
        return value and value.astimezone(timezone.utc)
    return value.replace(tzinfo=timezone.utc)  # Celery's columns are UTC without saying so


def _error(value: Any) -> Any:
    is_exception = isinstance(value, dict) and {"exc_type", "exc_message"} <= value.keys()
    return describe_error(value) if is_exception else value


def to_percentiles(row: RowMapping) -> Percentiles:
    """Return the percentiles of a row of :func:`percentiles`."""
    values = (row["p50"], row["p95"], row["p99"])
    return Percentiles(*(None if value is None else float(value) for value in values))


def make_cursor(task: Task) -> str:
    """Return the opaque text that names ``task``'s place in a page."""
    moment = (task.published_at - _EPOCH) // _MICROSECOND
    return base64.urlsafe_b64encode(f"{moment:x}.{task.task_id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[datetime, str]:
    """Return the publication time and the task id of a cursor, else :class:`LedgerError`."""
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        moment, _, task_id = base64.b64decode(padded, b"-_", validate=True).decode().partition(".")
        if not task_id:
            raise ValueError(cursor)
        return _EPOCH + int(moment, 16) * _MICROSECOND, task_id
    except (binascii.Error, ValueError, OverflowError):
        raise LedgerError(
            f"after={cursor!r} is not a cursor: take it from the `next` of the page before."
        ) from None
