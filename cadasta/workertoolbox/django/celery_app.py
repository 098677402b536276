"""What the project's Celery app says of the ledger."""

from __future__ import annotations

from typing import Any

from celery import current_app

from ..messages.policy import records_ignored
from ..plain.urls import database_url
from ..routing.router import Router


def project_app() -> Any | None:
    """Return the Celery app of this process, or None where nobody has made one."""
    app = current_app._get_current_object()
    return None if app.main == "default" and not app.configured and not app.set_as_current else app


def is_configured(app: Any) -> bool:
    """Tell whether its tasks are recorded: ``Config`` has configured it."""
    return isinstance(app.conf.task_routes, Router)


def results_url(app: Any) -> str | None:
    """Return the URL of the results' database, or None where they are in no SQL database."""
    backend = app.conf.get("result_backend")
    if backend in ("db", "database"):
        backend = f"db+{app.conf.get('database_url')}"
    return database_url(backend) if isinstance(backend, str) else None


def ledger_url(app: Any) -> str | None:
    """Return the URL of the ledger's database, or None where none is named."""
    named = app.conf.get("LEDGER_URL")
    return (database_url(named) or named) if named else results_url(app)


def leaves_ignored_untold() -> bool:
    """Tell whether nobody records how tasks end that ignore their result."""
    app = project_app()
    return app is not None and is_configured(app) and not records_ignored(app.conf)
