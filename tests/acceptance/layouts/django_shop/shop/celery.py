"""The Celery app, as Celery's documentation has it for Django; and one line."""

from __future__ import annotations

import os

from celery import Celery

from cadasta.workertoolbox import adopt

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
adopt(app, queues=["orders"], MONITOR_REDACT=["card"])
