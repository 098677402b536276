"""JSON text that every database takes, and its reading back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kombu.utils import json as kombu_json

_decode: Callable[[str], Any] = kombu_json.loads
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def harmless(text: str) -> str:
    """Return ``text`` without NUL characters and lone surrogates, which PostgreSQL refuses."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def dump(value: Any) -> str:
    """Return ``value`` as JSON that PostgreSQL's ``jsonb`` takes, whatever is in it.

    NUL characters become U+FFFD, NaN and infinity null, and what JSON does not know its ``str``.
    Raises ``RecursionError`` for what is nested too deeply.
    """
    try:
        text = _encode(value)
        if "\\u0000" not in text and "\\ud" not in text:
            return text
    except (TypeError, ValueError):
        pass
    return _encode(_plain(value))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {harmless(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return harmless(str(value))


def load(text: str | bytes | None) -> Any:
    """Return the value of Celery's JSON (dates and decimals included).

    What is not JSON comes back as the text itself, or, for bytes that are no text, as a note
    of their size. Nothing is ever unpickled.
    """
    if text is None:
        return None
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            return f"<{len(text)} bytes that are not JSON>"
    try:
        return _decode(text)
    except Exception:  # whatever a decoder of one of the types makes of wrong input
        return text


def read_value(text: str) -> Any:
    """Return a value as people write it: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def write_value(value: Any) -> str:
    """Return the shortest text that :func:`read_value` reads as ``value``, which is of JSON."""
    if isinstance(value, str) and read_value(value) == value:
        return value
    return _encode(value)


def merged(old: str | None, new: str | None) -> str | None:
    """Return the JSON object ``old`` with what ``new`` says besides, or instead."""
    if old is None or new is None:
        return old if new is None else new
    return dump({**json.loads(old), **json.loads(new)})


def contains(text: str | None, wanted: str) -> bool:
    """Tell whether the JSON ``text`` contains ``wanted``, as PostgreSQL's ``@>`` sees it."""
    return text is not None and _contains(json.loads(text), json.loads(wanted))


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(
            key in value and _contains(value[key], item) for key, item in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(value, list) and all(
            any(_contains(element, item) for element in value) for item in wanted
        )
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return bool(value == wanted)


def paths_of_values(wanted: Mapping[Any, Any], beginning: str = "$") -> Iterator[str]:
    """Yield the JSON path of each value that is neither an object nor a list."""
    for key, value in wanted.items():
        path = f"{beginning}.{dump(str(key))}"
        if isinstance(value, Mapping):
            yield from paths_of_values(value, path)
        elif not isinstance(value, (list, tuple, set, frozenset)):
            yield path
