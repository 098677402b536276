"""The app for ``celery -A message_queue monitor|tasks|ledger``, which looks for it here."""

from __future__ import annotations

from .application import make_app
from .settings import Settings

app = make_app(Settings.from_environ())
