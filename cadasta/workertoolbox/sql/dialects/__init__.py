"""The databases that the toolbox knows, by SQLAlchemy's names for them."""

from __future__ import annotations

from sqlalchemy import URL, Connection, Engine

from ...errors import LedgerError
from .database import Database
from .dialect import Dialect
from .mysql import MySQL
from .postgresql import PostgreSQL
from .sqlite import SQLite

__all__ = ["Database", "Dialect", "MySQL", "PostgreSQL", "SQLite", "by_name", "find", "of"]

_DIALECTS: dict[str, Dialect] = {
    "postgresql": PostgreSQL(),
    "postgres": PostgreSQL(),
    "sqlite": SQLite(),
    "mysql": MySQL(),
    "mariadb": MySQL(),
}


def by_name(name: str) -> Dialect:
    """Return the dialect of this name; ``KeyError`` where there is none."""
    return _DIALECTS[name]


def find(engine: Engine | Connection) -> Dialect | None:
    """Return a database's dialect, or None where the toolbox does not know it."""
    return _DIALECTS.get(engine.dialect.name)


def of(engine: Engine | Connection) -> Dialect:
    """Return a database's dialect; :class:`LedgerError` where the toolbox does not know it."""
    dialect = find(engine)
    if dialect is None:
        raise LedgerError(
            f"The database {engine.dialect.name} cannot be used: use PostgreSQL, SQLite, MySQL or "
            "MariaDB."
        )
    return dialect


def database_of(url: URL) -> Database:
    """Return what is known of a URL's database, also of one for which there is no dialect."""
    name = url.get_backend_name()
    return _DIALECTS.get(name) or Database(name)
