"""Sends the ledger's models to its database, and keeps Django's own tables out of that."""

from __future__ import annotations

from typing import Any

from django.db import models, router

from .databases import DEFAULT, LABEL, ledger_alias


class LedgerRouter:
    """A database router; the app puts it before those of ``DATABASE_ROUTERS`` by itself."""

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        return ledger_alias() if model._meta.app_label == LABEL else None

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        return self.db_for_read(model)

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """Let Django make neither our tables, nor its own in a database that is the ledger's.

        So ``dumpdata``, ``loaddata`` and ``flush`` pass the ledger by as well.
        """
        if app_label == LABEL:
            return False
        return False if db == LABEL and ledger_alias() != DEFAULT else None


def install() -> None:
    """Put the router before all others, unless the project has named it."""
    if not any(isinstance(known, LedgerRouter) for known in router.routers):
        router.routers.insert(0, LedgerRouter())
