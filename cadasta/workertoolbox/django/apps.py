"""The app for ``INSTALLED_APPS``: its router, its tables after ``migrate``, its checks."""

from __future__ import annotations

from typing import IO, Any

from django.apps import AppConfig
from django.core.checks import Tags, register
from django.core.management.base import CommandError
from django.db.models.signals import post_migrate

from ..errors import ToolboxError
from .databases import LABEL, ledger_alias, make_django_engine


class LedgerConfig(AppConfig):
    """The room as Django sees it."""

    name = "cadasta.workertoolbox.django"
    label = LABEL
    verbose_name = "Task ledger"
    default_auto_field = "django.db.models.AutoField"

    def ready(self) -> None:
        # They import what is there only once the apps are loaded.
        from . import checks, routers

        routers.install()
        register(checks.check_celery_app, LABEL)
        register(checks.check_connection, LABEL, Tags.database)
        # Not a migration of Django's: the steps are Alembic's, with their own version in the
        # database, and workers and monitors apply them as well.
        post_migrate.connect(make_tables, sender=self, dispatch_uid="workertoolbox.make_tables")


def make_tables(using: str, verbosity: int = 1, stdout: IO[str] | None = None, **_: Any) -> None:
    """Make or upgrade the ledger's tables after ``manage.py migrate`` of their database."""
    if using != ledger_alias():
        return
    from ..sql import migrations  # SQLAlchemy, which most processes of a Django project need not

    try:
        engine = make_django_engine(using)
        try:
            applied = migrations.upgrade(engine)
        finally:
            engine.dispose()
    except ToolboxError as exc:
        raise CommandError(str(exc)) from exc
    if applied and verbosity and stdout is not None:
        stdout.write(f"Made the ledger's tables: {', '.join(applied)}\n")
