"""What a message's headers and properties may hold on every broker, and how the rest is written.

An AMQP table takes no UUID, no set, no integer above 64 bits and no key but short text; it keeps a
time to the second, and RabbitMQ closes the connection for a NaN or an infinity. The virtual
transports write JSON, with types of kombu's own. What both take, and what both give back as it was,
is what JSON has.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

logger = logging.getLogger(__name__)

#: The longest key of an AMQP table, in bytes.
MAX_KEY = 255
_INTEGERS = range(-(2**63), 2**63)


def portable(value: Any) -> Any:
    """Return ``value`` as JSON has it: the same on each broker, for the worker and the ledger.

    Dates and times become ISO 8601, tuples and sets lists, bytes and keys text; an integer above
    64 bits, a NaN, an infinity, and whatever JSON does not know, becomes its ``str``.
    """
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return value
    try:
        return _portable(value)
    except Exception as exc:  # nested too deeply, or what an application's own type makes of it
        logger.warning("A header or property is a %s that has no text: %r", kind.__name__, exc)
        return f"<{kind.__name__}: {type(exc).__name__}>"


def portable_mapping(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """Return ``mapping`` with portable keys and values; what cannot be one is noted."""
    return {_key(key): portable(value) for key, value in mapping.items()}


def _portable(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return str.__str__(value)  # an enumeration's member is its value
    if isinstance(value, int):
        number = int(value)  # a range looks for what is of another type one by one
        return number if number in _INTEGERS else str(number)
    if isinstance(value, Mapping):
        return {_key(key): _portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_portable(item) for item in value), key=repr)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "backslashreplace")
    reduced = getattr(value, "__json__", None)  # kombu's own way for an application's types
    if callable(reduced):
        return _portable(reduced())
    return str(value)


def _key(key: Any) -> str:
    text = key if type(key) is str else str(_portable(key))
    if len(text) <= MAX_KEY // 4 or len(text.encode("utf-8", "surrogatepass")) <= MAX_KEY:
        return text
    short = text.encode("utf-8", "replace")[:MAX_KEY].decode("utf-8", "ignore")
    logger.warning(
        "A header or property has a name of %d characters, and AMQP takes %d bytes: it is cut, %r…",
        len(text),
        MAX_KEY,
        short[:40],
    )
    return short
