"""The schema's numbered steps, applied once each, under a lock, by whoever comes first."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Connection, Engine, Table, column, inspect, select, table
from sqlalchemy.exc import DBAPIError, NoSuchTableError, SQLAlchemyError

from ...errors import LedgerError
from ...plain.backoff import Backoff
from ...plain.urls import mask_url
from .. import dialects
from ..engines import is_memory, writing
from ..failures import (
    brief,
    is_forbidden,
    is_lost_race,
    is_missing_table,
    ledger_error,
)
from ..tables import task

logger = logging.getLogger(__name__)

#: The newest step's name, which is the schema's version.
HEAD = "0002_attempts"
#: Not Alembic's usual name: an application may keep its own versions in the same database.
VERSION_TABLE = "workertoolbox_version"

_versions = table(VERSION_TABLE, column("version_num"))
_LEDGER = frozenset({"celery_task", "celery_task_undecodable"})
_RESULTS = frozenset({"celery_taskmeta", "celery_tasksetmeta"})
_UNREADABLE = "unreadable"
_LOCK = 0x776F726B6572  # any number that no other user of the database would take
_ATTEMPTS = 10
_alembic = threading.Lock()


def current(engine: Engine) -> str | None:
    """Return the database's schema version, or None where there is none (or none to be seen).

    Raises :class:`LedgerError` where the database cannot be reached.
    """
    try:
        version = _version(engine)
    except SQLAlchemyError as exc:
        raise ledger_error(exc, "read the ledger's schema version") from exc
    return None if version == _UNREADABLE else version


def upgrade(engine: Engine) -> list[str]:
    """Apply the steps that the database lacks and return their names, oldest first.

    Safe to call at each start and from many processes at once. A database role that may not
    create tables does no harm where they are there already. Raises :class:`LedgerError` where
    they are missing and cannot be made, or the database cannot be reached.
    """
    retry = Backoff(0.1, 0.5)
    for attempt in range(_ATTEMPTS):
        try:
            return _upgrade(engine)
        except SQLAlchemyError as exc:
            if is_forbidden(exc):
                return _without_rights(engine, exc)
            if not is_lost_race(exc) or attempt == _ATTEMPTS - 1:
                raise ledger_error(exc, "make the ledger's tables") from exc
            # Celery's result backend makes its tables without our lock.
            logger.debug("Another process made the same tables (%s): trying again", brief(exc))
            time.sleep(retry.next())
    raise AssertionError("unreachable")


def require(engine: Engine) -> None:
    """Do nothing where the ledger's tables are up to date; nothing is changed anywhere else either.

    A role that may not read their version may read them where no column is missing. Raises
    :class:`LedgerError` where they are missing or older than this code, or the database cannot be
    reached.
    """
    try:
        # SQLite would make the file.
        version = None if _lacks_file(engine) else _version(engine)
        if _is_done(version):
            return
        lacking = _lacking(engine) if version == _UNREADABLE else []
    except SQLAlchemyError as exc:
        raise ledger_error(exc, "read the ledger's schema version") from exc
    if version == _UNREADABLE and not lacking:
        return
    if version is None or len(lacking) == len(task.c):
        state = "missing, or not finished, or not to be seen by this database role"
    elif lacking:
        state = f"older than this installation (celery_task lacks {', '.join(lacking)})"
    else:
        state = f"at version {version}, older than this installation's {HEAD}"
    raise LedgerError(
        f"The ledger's tables in {mask_url(engine.url.render_as_string())} are {state}: run "
        "`celery -A proj ledger upgrade` as their owner. Reading changes no tables."
    )


def _lacks_file(engine: Engine) -> bool:
    place = engine.url.database or ""
    database = dialects.database_of(engine.url)
    if not database.is_in_process or is_memory(engine.url) or place.startswith("file:"):
        return False
    return not os.path.exists(place)


def _lacking(engine: Engine) -> list[str]:
    """Return the columns that ``celery_task`` lacks, all where there is no such table to see."""
    try:
        names = {column["name"] for column in inspect(engine).get_columns(task.name)}
    except NoSuchTableError:
        names = set()
    return [name for name in task.c.keys() if name not in names]


def create(engine: Engine, tables: Sequence[Table]) -> None:
    """Make tables under names of their own where they are missing, one process at a time.

    Raises SQLAlchemy's errors, also where the role may not.
    """
    with writing(_transactional(engine)) as connection, _locked(connection):
        for one in tables:
            one.metadata.create_all(connection)


def _transactional(engine: Engine) -> Engine:
    # A result backend's engine is in autocommit, which would end the lock at once.
    level = dialects.of(engine).isolation_level("READ COMMITTED")
    return engine.execution_options(isolation_level=level)


def _upgrade(engine: Engine) -> list[str]:
    version = _version(engine)
    if _is_done(version):
        return []
    if version == _UNREADABLE and are_usable(engine):
        return []
    with writing(_transactional(engine)) as connection, _locked(connection):
        if _is_done(_read_version(connection)):
            return []  # another process was faster
        return _apply(connection)


def _is_done(version: str | None) -> bool:
    if version is None or version == _UNREADABLE or version < HEAD:
        return False
    if version > HEAD:
        logger.warning(
            "The ledger's tables are at version %s, made by a newer workertoolbox (this one "
            "knows %s): going on, upgrade this installation soon",
            version,
            HEAD,
        )
    return True


def _version(engine: Engine) -> str | None:
    try:
        with engine.connect() as connection:
            return _select_version(connection)
    except DBAPIError as exc:
        if is_missing_table(exc):
            return None
        if is_forbidden(exc):
            return _UNREADABLE
        raise


def _read_version(connection: Connection) -> str | None:
    # Within a transaction a failed SELECT would end it on PostgreSQL: look first.
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return _select_version(connection)


def _select_version(connection: Connection) -> str | None:
    version = connection.scalar(select(_versions.c.version_num))
    return None if version is None else str(version)


def _locked(connection: Connection) -> AbstractContextManager[None]:
    return dialects.of(connection).migration_lock(connection, _LOCK)


def _apply(connection: Connection) -> list[str]:
    # Imported here: Alembic takes 0.2 s to load and is needed once in a database's life.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationInfo, MigrationStep
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).parent))
    applied: list[str] = []

    def steps(versions: tuple[str, ...], context: object) -> list[MigrationStep]:
        newer = script.iterate_revisions("head", versions, implicit_base=True)
        upgrade_from = MigrationStep.upgrade_from_script
        return [upgrade_from(script.revision_map, step) for step in reversed(list(newer))]

    def note(*, step: MigrationInfo, **_others: object) -> None:
        applied.extend(step.up_revision_ids)

    # Alembic keeps the running step's connection in a global of its own.
    with _alembic, EnvironmentContext(Config(), script, fn=steps) as environment:
        environment.configure(
            connection=connection,
            version_table=VERSION_TABLE,
            on_version_apply=note,  # type: ignore[arg-type]  # called by keywords alone
        )
        environment.run_migrations()
    logger.info("Made the ledger's tables: %s", ", ".join(applied))
    return applied


def are_usable(engine: Engine) -> bool:
    """Tell whether all tables are there, also where this role may not read their version."""
    found = _LEDGER | _RESULTS
    tables = found.intersection(inspect(engine).get_table_names())
    if dialects.of(engine).hides_tables:
        return tables >= _LEDGER or tables >= _RESULTS
    return tables == found


def _without_rights(engine: Engine, exc: SQLAlchemyError) -> list[str]:
    try:
        usable = are_usable(engine)
    except SQLAlchemyError:
        usable = False
    if not usable:
        raise LedgerError(
            f"The ledger's tables are missing and this database role may not make them "
            f"({brief(exc)}). Run `celery -A proj ledger upgrade` with a role that may (on "
            "PostgreSQL: GRANT CREATE ON SCHEMA public TO it), then GRANT this one its rights."
        ) from exc
    if (version := _version(engine)) not in (None, _UNREADABLE):
        logger.warning(
            "The ledger's tables are at version %s, not %s, and this database role may not "
            "change them: run `celery -A proj ledger upgrade` as their owner",
            version,
            HEAD,
        )
    return []
