"""Stored values as text for people."""

from __future__ import annotations

import json
from typing import Any

from ..plain.json_text import harmless

#: Characters of a value that a page shows.
LONGEST = 100_000


def readable(value: Any) -> str:
    """Return a value as indented JSON, cut where it is very long; a text as it is."""
    if isinstance(value, str):
        text = value
    else:
        try:
            text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
        except (RecursionError, TypeError, ValueError):
            text = str(value)
    text = harmless(text)
    rest = len(text) - LONGEST
    return text if rest <= 0 else f"{text[:LONGEST]}\n... {rest:,} more characters"
