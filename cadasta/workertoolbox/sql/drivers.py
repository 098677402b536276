"""What the URL of a database means by itself; without SQLAlchemy, which settings do not load."""

from __future__ import annotations

import re

_WITHOUT_DRIVER = re.compile(r"^postgresql(?=://)")


def with_driver(url: str) -> str:
    """Return the URL with the driver that we require for PostgreSQL, where it names none.

    SQLAlchemy 2.1 takes psycopg 3 there.
    """
    return _WITHOUT_DRIVER.sub("postgresql+psycopg2", url)


def is_file(url: str) -> bool:
    """Tell whether the URL is of SQLite."""
    return url.startswith("sqlite")
