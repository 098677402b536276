"""What ``manage.py check`` can tell of the ledger in a project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import DatabaseError, connections
from django.db.backends.base.creation import TEST_DATABASE_PREFIX

from ..plain.urls import mask_url
from .celery_app import is_configured, ledger_url, project_app, results_url
from .databases import LABEL, ledger_alias, place_of
from .models import Result

#: Celery's setting of the tables' names; its default is that of the model.
_RENAMED = "database_table_names"


def check_celery_app(*_: Any, **__: Any) -> list[CheckMessage]:
    """See whether the Celery app records its tasks, and where; connects to nothing."""
    return list(_celery_findings())


def check_connection(
    *_: Any, databases: Sequence[str] | None = None, **__: Any
) -> list[CheckMessage]:
    """Connect to the ledger's database where ``migrate`` or ``check --database`` names it."""
    alias = ledger_alias()
    if alias not in (databases or ()):
        return []
    if place_of(alias) is None:
        return [
            Error(
                f"DATABASES[{alias!r}] is {connections[alias].display_name}, which cannot have "
                "the ledger.",
                hint=f"Add DATABASES[{LABEL!r}] = database_from_url(<LEDGER_URL>).",
                id=f"{LABEL}.E001",
            )
        ]
    try:
        connections[alias].ensure_connection()
    except DatabaseError as exc:
        return [
            Error(
                f"The ledger's database, DATABASES[{alias!r}], cannot be reached: "
                f"{mask_url(str(exc)).strip()}",
                hint="Start it, or correct its host, name, user and password.",
                id=f"{LABEL}.E002",
            )
        ]
    return []


def _celery_findings() -> Iterator[CheckMessage]:
    if not settings.USE_TZ:
        yield Warning(
            "USE_TZ is False: the ledger's times are aware, and would be shown as local ones.",
            hint="Set USE_TZ = True.",
            id=f"{LABEL}.W003",
        )
    app = project_app()
    if app is None:
        yield Warning(
            "No Celery app is known in this process: tasks that it publishes would reach no "
            "worker of yours, and no ledger.",
            hint="Import it in the project's __init__.py: from .celery import app as celery_app",
            id=f"{LABEL}.W004",
        )
        return
    try:
        is_recorded = is_configured(app)  # reads the settings, from wherever they are
    except Exception as exc:  # whatever a settings module raises
        yield Error(
            f"The settings of the Celery app {app.main!r} cannot be read: "
            f"{type(exc).__name__}: {mask_url(str(exc))}",
            hint="Correct what it says.",
            id=f"{LABEL}.E005",
        )
        return
    if not is_recorded:
        yield Warning(
            f"The Celery app {app.main!r} is not configured by the toolbox: what it publishes is "
            "not recorded.",
            hint="app.config_from_object(Config(queues=[...])) in the module of the app.",
            id=f"{LABEL}.W006",
        )
    yield from _place_findings(app)


def _place_findings(app: Any) -> Iterator[CheckMessage]:
    ledger, results = ledger_url(app), results_url(app)
    if ledger is None:
        yield Warning(
            "The Celery app names no database for the ledger.",
            hint="Set LEDGER_URL, or result_backend to toolbox+postgresql://... .",
            id=f"{LABEL}.W007",
        )
        return
    alias = ledger_alias()
    if not _leads_to(alias, ledger):
        yield Warning(
            f"The Celery app's ledger is in {mask_url(ledger)}, and its models look into "
            f"DATABASES[{alias!r}], {place_of(alias)}.",
            hint=f"DATABASES[{LABEL!r}] = database_from_url(<that URL>), of "
            "cadasta.workertoolbox.django.",
            id=f"{LABEL}.W008",
        )
    if results is None:
        yield Warning(
            "The results are in no SQL database: each task will look PENDING.",
            hint="Set result_backend to toolbox+ and the URL of the ledger's database.",
            id=f"{LABEL}.W009",
        )
    elif not _is_one_database(results, ledger):
        yield Warning(
            f"The results are in another database than the ledger, {mask_url(results)}: each task "
            "will look PENDING.",
            hint="Set LEDGER_URL to the result backend's database, or the reverse.",
            id=f"{LABEL}.W009",
        )
    names = app.conf.get(_RENAMED) or {}
    table = names.get("task") or Result._meta.db_table
    schema = (app.conf.get("database_table_schemas") or {}).get("task")
    if table != Result._meta.db_table or schema:
        yield Warning(
            f"The Celery app keeps its results in the table {f'{schema}.' if schema else ''}"
            f"{table}, and the models read {Result._meta.db_table}: each task will look PENDING.",
            hint=f"Drop {_RENAMED} and database_table_schemas, or make a view of that name.",
            id=f"{LABEL}.W010",
        )


def _leads_to(alias: str, url: str) -> bool:
    place = place_of(alias)
    if place is None:
        return True  # another check tells
    if _is_one_database(place, url):
        return True
    # While Django's tests run, the name is that of the test's database.
    head, slash, name = place.rpartition("/")
    was = name.removeprefix(TEST_DATABASE_PREFIX)
    return was != name and _is_one_database(f"{head}{slash}{was}", url)


def _is_one_database(one: str, other: str) -> bool:
    from ..sql.engines import same_database  # SQLAlchemy

    # To a driver, no host is a socket of this machine; Django's settings often say so.
    return same_database(_local(one), _local(other))


def _local(url: str) -> str:
    return url.replace("@127.0.0.1", "@localhost").replace("//127.0.0.1", "//localhost")
