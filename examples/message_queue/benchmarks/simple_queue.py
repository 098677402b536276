"""The rival: kombu's SimpleQueue in one process, with the same confirmations."""

from __future__ import annotations

import time
import uuid

from kombu import Connection


def measure(url: str, message: str, total: int) -> tuple[float, float]:
    """Acknowledged publishes and fetches a second."""
    name = f"simple-{uuid.uuid4().hex}"
    options = {"confirm_publish": True}
    with Connection(url, transport_options=options) as connection:
        queue = connection.SimpleQueue(name)
        queue.put(message)
        started = time.perf_counter()
        for _ in range(total - 1):
            queue.put(message)
        publishes = (total - 1) / (time.perf_counter() - started)
    with Connection(url, transport_options=options) as connection:
        queue = connection.SimpleQueue(name)
        started = time.perf_counter()
        for _ in range(total):
            queue.get(timeout=10).ack()
        fetches = total / (time.perf_counter() - started)
        queue.close()  # its consumer goes before its queue
        channel = connection.channel()
        channel.queue_delete(name)
        channel.exchange_delete(name)
    return publishes, fetches
