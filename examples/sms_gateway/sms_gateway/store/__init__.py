"""What is read from and written to the tables, a module a subject."""

from __future__ import annotations

from datetime import datetime, timezone


def now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(timezone.utc)
