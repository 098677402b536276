"""The inbox: applies what leaders and agents report, and feeds the next units."""

from __future__ import annotations

import functools
from typing import Any

from celery import Celery, signals
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError

from .database import Database, utc_now
from .feeder import Feeder, Sweeper
from .messages import REPORT
from .reports import Report, apply_report
from .settings import Settings

#: The longest wait, in seconds, before a report is tried again while the database is away.
MAX_WAIT = 30


def add_inbox_task(app: Celery, settings: Settings, name: str) -> None:
    """Give the app the inbox's task, and its pool process the sweeper.

    Args:
        app: of the worker.
        settings: of the database.
        name: stands in the history as who fed a unit.
    """

    @functools.cache
    def feeder() -> Feeder:
        # Made in the pool's process: neither SQLite nor a connection bears a fork.
        return Feeder(app, Database(settings.db_url), settings.box, name)

    @app.task(name=REPORT, bind=True, shared=False, max_retries=None)
    def report(self: Any, **fields: Any) -> list[str]:
        """Apply one report; returns the statuses that the unit went through."""
        try:
            with feeder().database.write() as connection:
                applied = apply_report(connection, Report(**fields), utc_now(), name)
        except (OperationalError, InterfaceError, InternalError) as error:
            wait = min(2**self.request.retries, MAX_WAIT)
            raise self.retry(countdown=wait, exc=error) from error
        # After the commit: a report is never applied twice, so this fails without a retry.
        feeder().publish_or_leave(applied.feedings)
        return [after for _, after in applied.steps]

    def start_sweeper(**_: Any) -> None:
        sweeper = Sweeper(feeder())
        sweeper.start()
        signals.worker_process_shutdown.connect(lambda **_: sweeper.stop(), weak=False)

    signals.worker_process_init.connect(start_sweeper, weak=False)
