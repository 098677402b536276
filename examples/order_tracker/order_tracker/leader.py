"""The leader: takes units out of the outbox, prepares them, and hands them to the agents."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from celery import Celery

from .messages import PREPARE, again_if_broker_is_away, send_report, send_work
from .reports import Report
from .statuses import QUEUED


def add_leader_task(app: Celery) -> None:
    """Give the app the leader's task."""
    app.task(name=PREPARE, bind=True, shared=False)(prepare)


def prepare(self: Any, order_id: int, attempt: int, priority: int, payload: dict[str, Any]) -> str:
    """Put one unit on the agents' queue and acknowledge its receipt; returns the agent's task id.

    A message that is delivered twice makes the same agent's task id twice, so that the ledger knows
    it as one.
    """
    task_id = str(uuid.uuid5(uuid.UUID(self.request.id), "agent"))
    unit = {"order_id": order_id, "attempt": attempt, "priority": priority, "payload": payload}
    expires = self.request.expires and datetime.fromisoformat(self.request.expires)
    with again_if_broker_is_away():
        send_work(self.app, unit, task_id, expires)
        send_report(
            self.app, Report(order_id, attempt, QUEUED, self.request.hostname, self.request.id)
        )
    return task_id
