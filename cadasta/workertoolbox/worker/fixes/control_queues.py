"""The queue of a worker's remote control on RabbitMQ, whose old one may still be locked."""

from __future__ import annotations

import secrets
from typing import Any

from ...brokers.kinds import broker_of_app
from .known import Workaround

_WORKAROUND = Workaround(
    "a worker that is back before RabbitMQ has missed its old connection may end by RESOURCE_LOCKED"
    " (405): wait a minute before you start it again"
)


def name_control_queues(app: Any) -> None:
    """On RabbitMQ, give the queue of a worker's remote control a new name with each connection.

    The queue is exclusive (``control_queue_exclusive``). Where a worker is back before RabbitMQ has
    missed its old connection, the old queue is still locked, and the worker would end by error 405;
    so would a second worker of the same name.
    """
    conf = app.conf
    if not broker_of_app(app).locks_control_queues:
        return
    if not _WORKAROUND.has(conf, "app.conf", "control_queue_exclusive"):
        return
    if conf.control_queue_exclusive:
        name_anew(app.control.mailbox)


def name_anew(mailbox: Any) -> None:
    """Let each queue of a mailbox of remote control have a name of its own."""
    if not _WORKAROUND.has(mailbox, "app.control.mailbox", "get_queue"):
        return
    get_queue = mailbox.get_queue

    def get_own_queue(*args: Any, **kwargs: Any) -> Any:
        queue = get_queue(*args, **kwargs)
        if _WORKAROUND.has(queue, "the queue of remote control", "name"):
            queue.name = f"{queue.name}.{secrets.token_hex(4)}"
        return queue

    mailbox.get_queue = get_own_queue
