"""What a caller's values may be. The rules are those of the SharQ HTTP API."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from .errors import InvalidField, TooLarge

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")

#: Most milliseconds of an interval: what a double of Lua and of JSON holds exactly.
MAX_INTERVAL: Final = 2**53
#: Most requeues and most waiting jobs that can be asked for.
MAX_COUNT: Final = 2**53


def identifier(field: str, value: Any) -> str:
    """Return a queue type, queue id or job id: 1 to 100 of letters, digits, ``_`` and ``-``.

    Raises:
        InvalidField: it is none.
    """
    if isinstance(value, str) and _IDENTIFIER.fullmatch(value):
        return value
    raise InvalidField(field)


def whole_number(field: str, value: Any, least: int, most: int) -> int:
    """Return an integer within bounds; a boolean is none.

    Raises:
        InvalidField: it is none, or out of bounds.
    """
    if type(value) is int and least <= value <= most:
        return value
    raise InvalidField(field)


def interval(value: Any) -> int:
    """Return an interval in milliseconds: 0 to 2^53.

    Raises:
        InvalidField: it is none.
    """
    return whole_number("interval", value, 0, MAX_INTERVAL)


def requeue_limit(value: Any) -> int:
    """Return how often a job may be requeued: -1 (for ever) or more.

    Raises:
        InvalidField: it is none.
    """
    return whole_number("requeue_limit", value, -1, MAX_COUNT)


def token(value: Any) -> str:
    """Return the token of a delivery, or any other ASCII text, which is that of none.

    Raises:
        InvalidField: it is no such text.
    """
    if isinstance(value, str) and value.isascii():
        return value
    raise InvalidField("token")


def payload_text(value: Any, limit: int) -> bytes:
    """Return a payload, a JSON object, as compact JSON text.

    Args:
        value: the payload.
        limit: most bytes of its text.

    Raises:
        InvalidField: it is no object, or holds what JSON has no word for (NaN, infinity).
        TooLarge: its text is longer than ``limit``.
    """
    if not isinstance(value, dict):
        raise InvalidField("payload")
    try:
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            data = text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can name
            data = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidField("payload") from error
    if len(data) > limit:
        raise TooLarge(f"`payload` has {len(data)} bytes of JSON; the limit is {limit}.")
    return data
