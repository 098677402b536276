"""The app for Celery's own command line: ``celery -A order_tracker.celery monitor``."""

from __future__ import annotations

from .messages import make_app
from .settings import Settings

app = make_app(Settings.from_environ())
