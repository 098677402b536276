"""What is left of a result that a database refuses."""

from __future__ import annotations

import re
from typing import Any

from ..messages.redaction import HIDDEN

#: Characters that are kept of an error's message, and of a traceback's begin and end, where the
#: whole of them is refused.
SHORT_MESSAGE, SHORT_TRACEBACK = 2000, 10_000

#: One input in pydantic's message: nothing follows its bracket, while text in it has no line's end.
_INPUT = re.compile(r"input_value=(?:.|\n)*?, (input_type=[^\]\n]*\])(?=\n|$)")
#: What tells more about a result and need not be there.
_EXTRAS = ("args", "kwargs", "stamps", "children", "traceback")


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
