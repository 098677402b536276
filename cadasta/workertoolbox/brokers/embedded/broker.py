"""The embedded broker, as the toolbox sees it."""

from __future__ import annotations

from typing import Any

from kombu import Queue

from ..visibility import HidingBroker


class EmbeddedBroker(HidingBroker):
    """A file for one machine: its bindings are in the file."""

    title = "the embedded broker"
    transports = {"embedded": None}
    transport_classes = {"embedded": "embedded.transport:Transport"}
    shares_bindings = True

    def bindings(self, connection: Any, queue: Queue, management_url: str | None) -> set[str]:
        """What the file tells."""
        with connection.channel() as channel:
            table = list(channel.list_bindings())
        return {key for name, at, key in table if (name, at) == (queue.name, queue.exchange.name)}

    def acknowledge(self, channel: Any, tags: list[Any]) -> None:
        """All at once: it numbers the deliveries of a channel, as AMQP does."""
        channel.basic_ack(tags[-1], multiple=True)
