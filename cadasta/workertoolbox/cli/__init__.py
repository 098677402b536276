"""The sub-commands of Celery."""

from __future__ import annotations

from ..brokers.transports import register
from .commands import check as check
from .commands import ledger as ledger
from .commands import monitor as monitor
from .commands import task as task
from .commands import tasks as tasks

# Celery loads this at each start, so that its own commands know our brokers without an app as well:
# `celery -b embedded:///... inspect ping`.
register()
