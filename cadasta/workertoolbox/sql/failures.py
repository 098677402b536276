"""What a database's error means: whose fault it is, whether to try again, what to do."""

from __future__ import annotations

import re

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ..errors import LedgerError
from ..plain.urls import mask_url

_Kind = tuple[set[str], set[int], tuple[str, ...]]

# PostgreSQL's SQLSTATE, MySQL's number, SQLite's words (it has no codes before Python 3.11).
_FORBIDDEN = ({"42501"}, {1044, 1142, 1143, 1227}, ("readonly database",))
#: The server takes no writes for now, or this session of it: a replica, a failover, a switch.
_READ_ONLY: _Kind = ({"25006"}, {1290, 1792, 1836}, ())
#: MySQL, also where a statement is longer than its ``max_allowed_packet``: it hangs up.
_HUNG_UP: _Kind = (set(), {1153, 2006, 2013}, ())
_MISSING_TABLE = ({"42P01"}, {1146}, ("no such table",))
_MISSING_COLUMN = ({"42703"}, {1054}, ("no such column", "has no column named"))
_EXISTS = (
    {"42P07", "42710", "42701", "23505", "XX000"},
    {1050, 1060, 1061, 1826},
    ("already exists", "duplicate column name"),
)
_CONFLICT = ({"40001", "40P01", "55P03"}, {1205, 1213}, ("database is locked",))
#: "Program limit exceeded" (such as a row too long for an index); MySQL: a statement, a row or a
#: value too long, a character that the table's character set lacks, text that is not JSON or is
#: nested too deeply. Its drivers take most of these for operational errors.
_TOO_LONG = (
    {"54000", "54001"},
    {
        1118,
        1153,
        1264,
        1265,
        1267,
        1271,
        1292,
        1300,
        1366,
        1406,
        1436,
        3140,
        3141,
        3157,
        3854,
        4025,
    },
    ("string or blob too big",),
)

#: A role without a right; a table or a column that is missing; on MySQL, a wrong password too.
_LASTING = (
    {*_FORBIDDEN[0], *_MISSING_TABLE[0], *_MISSING_COLUMN[0]},
    {1044, 1045, 1049, *_FORBIDDEN[1], *_MISSING_TABLE[1], *_MISSING_COLUMN[1]},
    (*_FORBIDDEN[2], *_MISSING_COLUMN[2], "unable to open", "not a database", "malformed"),
)


def _is(exc: BaseException, kind: _Kind) -> bool:
    if not isinstance(exc, DBAPIError) or exc.orig is None:
        return False
    states, numbers, words = kind
    arguments = exc.orig.args
    if arguments and isinstance(arguments[0], int):
        return arguments[0] in numbers
    state = getattr(exc.orig, "pgcode", None) or getattr(exc.orig, "sqlstate", None)
    if state is not None:
        return state in states
    return any(word in str(exc.orig) for word in words)


def is_forbidden(exc: BaseException) -> bool:
    """Tell whether the database role lacks a right."""
    return _is(exc, _FORBIDDEN)


def is_missing_table(exc: BaseException) -> bool:
    """Tell whether a table does not exist."""
    return _is(exc, _MISSING_TABLE)


def is_read_only(exc: BaseException) -> bool:
    """Tell whether the server, or this session of it, takes no writes; another one may."""
    return _is(exc, _READ_ONLY)


def hung_up(exc: BaseException) -> bool:
    """Tell whether MySQL closed the connection, as it does for a statement above its limit."""
    return _is(exc, _HUNG_UP)


def drop_read_only_sessions(engine: Engine) -> None:
    """Let ``engine`` forget its connections where one of them takes no writes.

    They would be kept for an hour, while a new one may reach the server that is primary now.
    """

    def failed(context: ExceptionContext) -> None:
        error = context.sqlalchemy_exception
        if error is not None and is_read_only(error):
            context.is_disconnect = True

    event.listen(engine, "handle_error", failed)


def is_lost_race(exc: BaseException) -> bool:
    """Tell whether another process just made the same table, column or index."""
    # SQLite has waited long enough where it says that it is locked.
    return _is(exc, _EXISTS) or _is(exc, (*_CONFLICT[:2], ()))


def is_conflict(exc: BaseException) -> bool:
    """Tell whether the same transaction, tried again, may well succeed (a deadlock)."""
    return _is(exc, _CONFLICT)


def is_passing(exc: BaseException) -> bool:
    """Tell whether the database is away or busy, so that the same statement may soon succeed."""
    if isinstance(exc, LedgerError) and exc.__cause__ is not None:
        return is_passing(exc.__cause__)
    if isinstance(exc, PoolTimeoutError) or is_conflict(exc) or is_read_only(exc):
        return True
    if not isinstance(exc, DBAPIError) or _is(exc, _LASTING) or is_bad_data(exc):
        return False
    return exc.connection_invalidated or isinstance(exc, (OperationalError, InterfaceError))


def is_bad_data(exc: BaseException) -> bool:
    """Tell whether the values are at fault, so that a second try would fail alike."""
    if isinstance(exc, DBAPIError):
        refused = isinstance(exc, (DataError, IntegrityError))
        return refused or _is(exc, _TOO_LONG) or _unbindable(exc) or _unallocated(exc)
    # What Python raises for a value of a wrong type or size, before the database sees it.
    wrong = (TypeError, ValueError, ArithmeticError, AttributeError, RecursionError)
    return isinstance(exc, (StatementError, *wrong))


def _unbindable(exc: DBAPIError) -> bool:
    return "rror binding parameter" in str(exc.orig)  # SQLite


def _unallocated(exc: DBAPIError) -> bool:
    return "invalid memory alloc request size" in str(exc.orig)  # PostgreSQL, above 1 GB


def ledger_error(exc: SQLAlchemyError, doing: str) -> LedgerError:
    """Make the error for users: what could not be done, why, and the remedy.

    :param doing: what was tried, to follow "Cannot", such as "read the ledger".
    """
    reason = brief(exc)
    remedy = ""
    if is_forbidden(exc):
        remedy = " The database role lacks a right: GRANT it (docs: operations, rights)."
    elif is_missing_table(exc) or _is(exc, _MISSING_COLUMN):
        remedy = " Run `celery -A proj ledger upgrade` as the tables' owner."
    elif isinstance(exc, DBAPIError) and (
        exc.connection_invalidated or getattr(exc.orig, "pgcode", "") is None
    ):
        remedy = " Check that the database server runs and that LEDGER_URL is right."
    return LedgerError(f"Cannot {doing}: {reason}.{remedy}")


def brief(exc: BaseException) -> str:
    """Return the error's kind and its first line, without passwords and without values."""
    cause = exc.orig if isinstance(exc, StatementError) and exc.orig is not None else exc
    text = mask_url(str(cause)).strip()
    first = re.split(r"\s*[\r\n]", text, maxsplit=1)[0].rstrip(".")
    return f"{type(cause).__name__}: {first}" if first else type(cause).__name__
