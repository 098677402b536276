"""A delay below one second on quorum queues, where Celery 5.7 refuses it."""

from __future__ import annotations

import functools
from datetime import datetime, timedelta
from typing import Any

from celery.utils.time import subtract_datetimes

from ...routing.router import router_of
from .known import Workaround

_WORKAROUND = Workaround(
    "a countdown or an ETA of less than a second raises ValueError on quorum queues: make it 1"
)

#: The shortest ETA that Celery cannot round down to none before it publishes.
SHORT_DELAY = timedelta(seconds=1.1)


def lengthen_short_delays(app: Any) -> None:
    """On quorum queues, let a delay below one second be one second.

    Celery 5.7 counts a delay in whole seconds there and raises ValueError for none, in a retry too.
    """
    if not router_of(app).quorum:
        return
    if _WORKAROUND.has(app, "the app", "send_task"):
        app.send_task = lengthened(app, app.send_task)


def lengthened(app: Any, send_task: Any) -> Any:
    """Return ``send_task`` of an app, with no delay below one second."""
    if not _WORKAROUND.takes(send_task, "app.send_task", "countdown", "eta"):
        return send_task

    @functools.wraps(send_task)
    def send(*args: Any, **options: Any) -> Any:
        countdown, eta = options.get("countdown"), options.get("eta")
        if countdown:
            options["countdown"] = max(countdown, 1)
        elif eta:
            moment = datetime.fromisoformat(eta) if isinstance(eta, str) else eta
            if timedelta(0) < subtract_datetimes(moment, app.now()) < SHORT_DELAY:
                options["eta"] = app.now() + SHORT_DELAY
        return send_task(*args, **options)

    return send
