"""Stored results as values: exceptions as text, and the pickles of Celery before 5.7."""

from __future__ import annotations

import builtins
import io
import pickle
from typing import Any

from ..errors import LedgerError


class _PlainUnpickler(pickle.Unpickler):
    """Opens what is made of plain values and Python's own exceptions; nothing else can run."""

    def find_class(self, module: str, name: str) -> Any:
        builtin = getattr(builtins, name, None) if module == "builtins" else None
        if isinstance(builtin, type) and issubclass(builtin, Exception):
            return builtin
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


def unpickle(payload: bytes) -> Any:
    """Return a pickled plain value or exception; for any other, a :class:`LedgerError` as value.

    The error is returned, not raised, so that the state of such a task can be read.
    """
    try:
        return _PlainUnpickler(io.BytesIO(payload)).load()
    except Exception as exc:  # a pickle may raise anything
        return LedgerError(
            f"This result is a pickle of an older Celery and was not opened ({exc}): "
            "read it with that version, or delete it."
        )


def describe_error(value: Any) -> str:
    """Return an exception, stored or raised, as text such as ``ValueError: no such file``."""
    if isinstance(value, BaseException):
        value = {"exc_type": type(value).__name__, "exc_message": value.args}
    if not isinstance(value, dict) or not {"exc_type", "exc_message"} <= value.keys():
        return str(value)
    message = value["exc_message"]
    if isinstance(message, (list, tuple)):
        message = ", ".join(str(part) for part in message)
    return f"{value['exc_type']}: {message}" if message else str(value["exc_type"])
