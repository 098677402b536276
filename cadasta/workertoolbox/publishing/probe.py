"""A task message that no worker runs, to see where the exchange takes it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

from kombu import Queue

from ..brokers.kinds import broker_of_connection
from ..messages.decoding import HEADER_PUBLISHED_AT

#: The probe's task; a worker that gets one finds it expired and drops it.
PROBE = "workertoolbox.probe"
#: A routing key that the monitor queue alone is bound to.
MONITOR_KEY = PROBE
#: Seconds for a probe to arrive at a queue.
ARRIVAL = 2.0


def register_probe(app: Any) -> None:
    """Make the probe's task known to an app, so that its workers drop it without an error."""
    if PROBE not in app.tasks:
        app.task(_nothing, name=PROBE, ignore_result=True)


def _nothing() -> None:
    """Never runs: it has expired when it is published."""


def publish_probe(app: Any, routing_key: str, declare: Sequence[Queue] = ()) -> str:
    """Publish a probe on the exchange; return its task id.

    The monitor queue is declared, and what ``declare`` names.
    """
    task_id = str(uuid4())
    past = datetime.now(timezone.utc) - timedelta(days=1)
    router = app.conf.task_routes
    message = app.amqp.create_task_message(task_id, PROBE, (), {}, expires=past, ignore_result=True)
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    headers = {**message.headers, "expires": past.isoformat(), HEADER_PUBLISHED_AT: now}
    with app.amqp.producer_pool.acquire(block=True, timeout=10) as producer:
        producer.publish(
            message.body,
            headers=headers,
            exchange=router.monitor.exchange,
            routing_key=routing_key,
            declare=[*declare, router.monitor],
            serializer=app.conf.task_serializer,
            **{**message.properties, "MessageGroupId": task_id},
        )
    return task_id


def reached(app: Any, connection: Any, sent_to: Queue, queues: list[Queue]) -> set[str]:
    """Publish a probe for one queue; return the names of those that it came to.

    Only queues without consumers can be watched: their length grows by one.
    """
    broker = broker_of_connection(connection)
    before = {queue.name: broker.length(connection, queue) for queue in queues}

    def grown() -> set[str]:
        return {
            queue.name for queue in queues if broker.length(connection, queue) > before[queue.name]
        }

    # Bindings that others see are not made for it: they are what is looked at.
    publish_probe(app, sent_to.routing_key, () if broker.shares_bindings else [sent_to])
    give_up = time.monotonic() + ARRIVAL
    found: set[str] = set()
    while time.monotonic() < give_up:
        found = grown()
        if sent_to.name in found:
            time.sleep(0.1)  # for what arrives elsewhere as well
            break
        time.sleep(0.05)
    found = grown()
    for queue in queues:
        if queue.name in found and not before[queue.name]:
            _take_back(connection, queue)
    return found


def _take_back(connection: Any, queue: Queue) -> None:
    with connection.channel() as channel:
        message = queue(channel).get()
        if message is None:
            return
        if message.headers.get("task") == PROBE:
            message.ack()
        else:
            message.requeue()
