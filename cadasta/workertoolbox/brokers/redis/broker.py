"""Redis, as the toolbox sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kombu import Queue

from ...plain.defaults import Default
from ..visibility import HidingBroker


class RedisBroker(HidingBroker):
    """Redis: bindings are in a set of its own, an empty queue is none, and it may forget."""

    title = "Redis"
    # On the toolbox's all copies of a publish are one step, and no wait is without end.
    transports = {
        "redis": "toolbox-redis",
        "rediss": "toolbox-rediss",
        "sentinel": "toolbox-sentinel",
    }
    transport_classes = {
        "toolbox-redis": "redis.transport:Transport",
        "toolbox-rediss": "redis.transport:SSLTransport",
        "toolbox-sentinel": "redis.transport:SentinelTransport",
    }
    options = {
        "confirm_timeout": Default(
            30.0, "delay() raises where Redis takes a message and does not answer."
        ),
        "socket_timeout": Default(
            30.0,
            "Workers notice that Redis does not answer; waiting for a message is not cut short.",
        ),
        "socket_connect_timeout": Default(5.0, "delay() raises where the host does not answer."),
        "socket_keepalive": Default(True, "A connection that a firewall dropped is noticed."),
    }
    shares_bindings = True

    def connect_timeout(self, settings: Mapping[str, Any]) -> float:
        """The transport option: redis-py does not heed Celery's setting."""
        given = settings.get("broker_transport_options") or {}
        default: float = self.options["socket_connect_timeout"].value
        return float(given.get("socket_connect_timeout") or default)

    def absence(self, connection: Any, queue: Queue) -> None:
        """An empty queue is none."""

    def bindings(self, connection: Any, queue: Queue, management_url: str | None) -> set[str]:
        """What the set of the exchange's bindings tells."""
        with connection.channel() as channel:
            table = channel.get_table(queue.exchange.name)
        return {key for key, _, name in table if name == queue.name}

    def eviction_policy(self, connection: Any) -> str:
        """What ``CONFIG GET`` tells, which hosted Redis forbids."""
        client = connection.default_channel.client
        policy = client.config_get("maxmemory-policy").get("maxmemory-policy", "")
        return policy.decode() if isinstance(policy, bytes) else str(policy)

    def monitor_transport(self, connection: Any) -> type:
        """One that keeps what the monitor holds in a hash of its own."""
        from .monitor_transport import transport_for  # redis is optional

        return transport_for(connection.get_transport_cls())

    def monitor_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Shorter waits: what the monitor did not hear of is given to it again."""
        from .monitor_transport import limits  # redis is optional

        return {**super().monitor_options(options), **limits(options)}

    def acknowledge(self, channel: Any, tags: list[Any]) -> None:
        """All at once."""
        channel.basic_ack_many(tags)
