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

from cadasta.workertoolbox import Config

from .errors import BrokerAwayError
from .feeding import Feeding
from .reports import Report
from .settings import Settings

PREPARE = "outbox.prepare"
WORK = "agent.work"
REPORT = "inbox.report"
AGENT_QUEUE = "agent"
INBOX_QUEUE = "inbox"


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
            result_backend=f"toolbox+{settings.ledger_url}",
            DURABLE=True,
        )
    )
    return app


def send_feeding(app: Celery, box: str, feeding: Feeding) -> None:
    """Send a unit to the leader.

    Raises:
        BrokerAwayError: the broker did not take it.
    """
    _send(
        app,
        PREPARE,
        box,
        {
            "order_id": feeding.order_id,
            "attempt": feeding.attempt,
            "priority": feeding.priority,
            "payload": feeding.payload,
        },
        task_id=feeding.task_id,
        # Else all units were one workflow: each is fed by the report that frees its place.
        root_id=feeding.task_id,
        expires=feeding.expires,
    )


def send_work(app: Celery, unit: dict[str, Any], task_id: str, expires: datetime | None) -> None:
    """Send a prepared unit to the agents. Raises BrokerAwayError."""
    _send(app, WORK, AGENT_QUEUE, unit, task_id=task_id, expires=expires)


def send_report(app: Celery, report: Report) -> None:
    """Tell the inbox. Raises BrokerAwayError."""
    _send(app, REPORT, INBOX_QUEUE, report.to_dict())


def _send(app: Celery, name: str, queue: str, fields: dict[str, Any], **options: Any) -> None:
    try:
        app.send_task(name, kwargs=fields, queue=queue, **options)
    except Exception as error:  # each broker's client has errors of its own; all mean this
        raise BrokerAwayError(f"{name} was not sent: {type(error).__name__}") from error


@contextmanager
def again_if_broker_is_away() -> Iterator[None]:
    """In a task: where a publish fails, have the task's own message delivered again.

    For ``retry()``, for which Celery would drop the message, the toolbox does it.
    """
    try:
        yield
    except BrokerAwayError as error:
        raise Reject(str(error), requeue=True) from error
