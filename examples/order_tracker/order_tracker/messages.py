"""The Celery app, and the messages between API, leader, agents and inbox.

::

    feeder ──outbox.prepare──► leader ──agent.work──► agent
                                  └────inbox.report────┴──────► inbox
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from celery import Celery
from celery.exceptions import Reject
from kombu.exceptions import OperationalError

from cadasta.workertoolbox import Config

from .feeding import Feeding
from .reports import Report
from .settings import Settings

PREPARE = "outbox.prepare"
WORK = "agent.work"
REPORT = "inbox.report"
AGENT_QUEUE = "agent"
INBOX_QUEUE = "inbox"

#: Its publishing failed; the broker is away.
BrokerAway = OperationalError


def make_app(settings: Settings) -> Celery:
    """The Celery app of every process; it has no tasks yet, and can publish.

    ``DURABLE``: a message is acknowledged when its task has ended, and delivered again when the
    worker died.
    """
    app = Celery("order_tracker", set_as_current=False)
    app.config_from_object(
        Config(
            queues=[settings.box, AGENT_QUEUE, INBOX_QUEUE],
            broker_url=settings.broker_url,
            result_backend=f"db+{settings.ledger_url}",
            DURABLE=True,
        )
    )
    return app


def send_feeding(app: Celery, box: str, feeding: Feeding) -> None:
    """Send a unit to the leader.

    Raises:
        BrokerAway: the broker did not take it.
    """
    app.send_task(
        PREPARE,
        kwargs={
            "order_id": feeding.order_id,
            "attempt": feeding.attempt,
            "priority": feeding.priority,
            "payload": feeding.payload,
        },
        queue=box,
        task_id=feeding.task_id,
        # Else all units were one workflow: each is fed by the report that frees its place.
        root_id=feeding.task_id,
        expires=feeding.expires,
    )


def send_work(app: Celery, unit: dict[str, Any], task_id: str, expires: datetime | None) -> None:
    """Send a prepared unit to the agents. Raises BrokerAway."""
    app.send_task(WORK, kwargs=unit, queue=AGENT_QUEUE, task_id=task_id, expires=expires)


def send_report(app: Celery, report: Report) -> None:
    """Tell the inbox. Raises BrokerAway."""
    app.send_task(REPORT, kwargs=report.to_dict(), queue=INBOX_QUEUE)


@contextmanager
def again_if_broker_is_away() -> Iterator[None]:
    """In a task: where a publish fails, have the task's own message delivered again."""
    try:
        yield
    except BrokerAway as error:
        raise Reject(error, requeue=True) from error
