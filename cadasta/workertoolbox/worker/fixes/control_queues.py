"""The queue of a worker's remote control on RabbitMQ, whose old one may still be locked."""

from __future__ import annotations

import secrets
from typing import Any

from ...brokers.kinds import broker_kind


def name_control_queues(app: Any) -> None:
    """On RabbitMQ, give the queue of a worker's remote control a new name with each connection.

    The queue is exclusive (``control_queue_exclusive``). Where a worker is back before RabbitMQ has
    missed its old connection, the old queue is still locked, and the worker would end by error 405;
    so would a second worker of the same name.
    """
    conf = app.conf
    if not conf.control_queue_exclusive or broker_kind(conf.broker_read_url) != "amqp":
        return
    mailbox = app.control.mailbox
    get_queue = mailbox.get_queue

    def get_own_queue(hostname: str) -> Any:
        queue = get_queue(hostname)
        queue.name = f"{queue.name}.{secrets.token_hex(4)}"
        return queue

    mailbox.get_queue = get_own_queue
