"""Celery's own database backend, with the driver that the toolbox brings along."""

from __future__ import annotations

from typing import Any

from celery.backends.database import DatabaseBackend

from ..sql.drivers import with_driver


class PlainBackend(DatabaseBackend):
    """What ``db+postgresql://`` names in an app of the toolbox.

    SQLAlchemy 2.1 takes psycopg 3 where a URL names no driver; psycopg2 is what is installed. All
    results would be lost, each with a line in the worker's log.
    """

    def __init__(
        self,
        dburi: str | None = None,
        engine_options: dict[str, Any] | None = None,
        url: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(_with_driver(dburi), engine_options, _with_driver(url), **options)
        if url is None and dburi is None:
            self.url = _with_driver(self.app.conf.database_url)


def _with_driver(url: str | None) -> str | None:
    return with_driver(url) if url else url
