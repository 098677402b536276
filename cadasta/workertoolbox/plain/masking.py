"""Settings for people's eyes: without their secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .urls import mask_url

#: Names under which secrets stand.
_SECRET = re.compile(
    r"pass(word|wd|phrase)?$|_pass\b|secret|token|credential|private|signature", re.I
)


def masked(value: Any, name: str = "") -> Any:
    """``value`` for people's eyes: no passwords in URLs, none under names that tell of a secret."""
    if isinstance(value, Mapping):
        return {key: masked(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(masked(item, name) for item in value)
    if isinstance(value, str | bytes) and value and _SECRET.search(name):
        return "***"
    return mask_url(value) if isinstance(value, str) else value
