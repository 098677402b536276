"""The rival: kombu's SimpleQueue in one process, with the same confirmations."""

from __future__ import annotations

import time
import uuid

from kombu import Connection


def measure(url: str, message: str, total: int, prefetch: int | None = None) -> tuple[float, float]:
    """Seconds for publishing and for fetching ``total`` messages, each confirmed or acknowledged.

    Args:
        prefetch: how many messages the broker sends ahead; default, as SimpleQueue's: all.
    """
    name = f"simple-{uuid.uuid4().hex}"
    options = {"confirm_publish": True}
    with Connection(url, transport_options=options) as connection:
        queue = connection.SimpleQueue(name)
        queue.put(message)  # declares
        started = time.perf_counter()
        for _ in range(total):
            queue.put(message)
        publishing = time.perf_counter() - started
    # Anew: what the broker sends while one still publishes would cost the publishing.
    with Connection(url, transport_options=options) as connection:
        queue = connection.SimpleQueue(name)
        if prefetch is not None:
            queue.consumer.qos(prefetch_count=prefetch)
        queue.get(timeout=10).ack()
        started = time.perf_counter()
        for _ in range(total):
            queue.get(timeout=10).ack()
        fetching = time.perf_counter() - started
        queue.close()  # its consumer goes before its queue
        channel = connection.channel()
        channel.queue_delete(name)
        channel.exchange_delete(name)
    return publishing, fetching
