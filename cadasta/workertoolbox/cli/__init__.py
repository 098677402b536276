"""The sub-commands of Celery."""

from __future__ import annotations

from .commands import check as check
from .commands import ledger as ledger
from .commands import monitor as monitor
from .commands import task as task
from .commands import tasks as tasks
