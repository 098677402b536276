"""What a database takes of a result, and what is left of one that it refuses."""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection
from typing import Any

from ..messages.redaction import HIDDEN
from ..sql.fitting import UTF8MB3

#: The largest statement and value of PostgreSQL, in bytes; a little is left for the rest of it.
POSTGRESQL_LIMIT = 2**30 - 2**16
#: The largest value of SQLite as it is usually built, in bytes.
SQLITE_LIMIT = 1_000_000_000
#: Characters that are kept of an error's message, and of a traceback's begin and end, where the
#: whole of them is refused.
SHORT_MESSAGE, SHORT_TRACEBACK = 2000, 10_000

#: One input in pydantic's message: nothing follows its bracket, while text in it has no line's end.
_INPUT = re.compile(r"input_value=(?:.|\n)*?, (input_type=[^\]\n]*\])(?=\n|$)")
#: What MySQL's drivers write as two bytes.
_ESCAPED = (b"\\", b"'", b'"', b"\0", b"\n", b"\r", b"\x1a")
#: What tells more about a result and need not be there.
_EXTRAS = ("args", "kwargs", "stamps", "children", "traceback")
#: PostgreSQL's names of character sets where Python's are others.
_POSTGRESQL_CODECS = {"UTF8": None, "SQL_ASCII": "ascii", "KOI8R": "koi8-r", "KOI8U": "koi8-u"}


def postgresql_codec(encoding: str) -> str | None:
    """Return the codec of a PostgreSQL database; None where it takes all of Unicode."""
    if encoding in _POSTGRESQL_CODECS:
        return _POSTGRESQL_CODECS[encoding]
    return _known_codec(encoding.replace("WIN", "cp"))


def mysql_codec(charsets: Collection[str]) -> str | None:
    """Return the codec of MySQL columns of these character sets; None for all of Unicode."""
    narrow = set(charsets) - {"utf8mb4"}
    if not narrow:
        return None
    if narrow <= {"utf8mb3", "utf8"}:
        return UTF8MB3
    others = narrow - {"utf8mb3", "utf8"}
    # Its latin1 is Microsoft's.
    return (
        "cp1252" if others == {"latin1"} else _known_codec(min(others) if len(others) == 1 else "")
    )


def _known_codec(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "ascii"


def statement_size(row: dict[str, Any], driver: str) -> int:
    """Return how many bytes the values of a row take in the driver's statement, nearly."""
    size = 0
    for value in row.values():
        if not isinstance(value, str | bytes):
            continue
        data = value.encode("utf-8", "replace") if isinstance(value, str) else value
        if driver == "psycopg2" and isinstance(value, bytes):
            size += 2 * len(data)  # in hexadecimal
        elif driver in ("pymysql", "mysqldb", "mysqlconnector"):
            size += len(data) + sum(data.count(character) for character in _ESCAPED)
        else:
            size += len(data)
    return size


def without_extras(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with its outcome alone, and no arguments, stamps and children."""
    return {**row, **{name: None for name in _EXTRAS if name in row}}


def shortened(result: Any, traceback: str | None, reason: str) -> tuple[Any, str | None]:
    """Return the begin of an error's message, and both ends of its traceback.

    Args:
        result: the error as Celery stores it, before it is encoded.
        reason: why the whole was refused.
    """
    traceback = traceback and _ends(traceback, SHORT_TRACEBACK)
    if isinstance(result, BaseException):  # with the serializer pickle
        return Exception(_begin(f"{type(result).__name__}: {result}", reason)), traceback
    if not isinstance(result, dict) or "exc_type" not in result:
        result = {"exc_type": "Exception", "exc_module": "builtins", "exc_message": result}
    message = result.get("exc_message")
    parts = message if isinstance(message, list | tuple) else [message]
    text = ", ".join(map(str, parts))
    if len(text) > SHORT_MESSAGE:
        result = {**result, "exc_message": [_begin(text, reason)]}
    return result, traceback


def _begin(text: str, reason: str) -> str:
    if len(text) <= SHORT_MESSAGE:
        return text
    return f"{text[:SHORT_MESSAGE]}... ({len(text):,} characters, of which this is kept: {reason})"


def _ends(text: str, length: int) -> str:
    if len(text) <= 2 * length:
        return text
    left_out = len(text) - 2 * length
    return f"{text[:length]}\n... ({left_out:,} characters are not stored) ...\n{text[-length:]}"


def hide_inputs(value: Any) -> Any:
    """Return a traceback, or an error as Celery stores it, without the inputs that pydantic shows.

    They are arguments of the task, or parts of them.
    """
    if isinstance(value, str):
        return _INPUT.sub(rf"input_value={HIDDEN}, \1", value) if "input_value=" in value else value
    if isinstance(value, dict):
        return {name: hide_inputs(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [hide_inputs(item) for item in value]
    return value
