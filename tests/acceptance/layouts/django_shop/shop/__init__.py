"""The shop's project, with its Celery app, as Celery's documentation asks for."""

from __future__ import annotations

from .celery import app as celery_app

__all__ = ["celery_app"]
