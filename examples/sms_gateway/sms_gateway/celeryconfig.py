"""Celery's settings. ``CELERY_`` + a setting's name in the environment changes any of them."""

from __future__ import annotations

import os
from typing import Any

from cadasta.workertoolbox import Config

from .keywords import words
from .settings import LONGEST_COUNTDOWN, Settings

#: The gateway's own queues; each keyword adds one.
QUEUES = ("message", "notification", "reply", "broadcast")


def build(settings: Settings) -> Config:
    """The settings of Celery for these of the gateway."""
    given: dict[str, Any] = {
        # A text whose worker dies is delivered again. Every task here bears that.
        "DURABLE": True,
        "ETA_HORIZON": LONGEST_COUNTDOWN,
        # A worker that waits for the provider holds its texts in memory: not more than so many.
        "worker_eta_task_limit": 1000,
        "worker_send_task_events": False,
    }
    queues = [*QUEUES, *words()]
    folder = settings.directory
    if not (settings.has_database and "CELERY_BROKER_URL" in os.environ):
        folder.mkdir(parents=True, exist_ok=True)
    if "CELERY_RESULT_BACKEND" in os.environ:
        # Said again as an argument, where it would lose against the embedded default.
        given["result_backend"] = os.environ["CELERY_RESULT_BACKEND"]
    elif settings.has_database:
        given["result_backend"] = f"toolbox+{settings.database_url}"
    elif "CELERY_BROKER_URL" in os.environ:
        given["result_backend"] = f"toolbox+sqlite:///{folder}/ledger.sqlite3"
    if "CELERY_BROKER_URL" in os.environ:
        return Config(queues, **given)
    return Config.local(queues, folder, **given)


config = build(Settings.from_environment())
