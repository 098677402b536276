"""A default value with the reason why it is not the one of the library below."""

from __future__ import annotations

from typing import Any, NamedTuple


class Default(NamedTuple):
    """A default value and why it is not Celery's."""

    value: Any
    reason: str
