"""kombu's Redis transport, with all copies of a publish in one transaction and one round trip.

kombu asks Redis for the exchange's bindings with each publish and then pushes one copy after the
other. A publisher that dies in between leaves a task that runs and is not recorded; and each
publish waits three times where one wait is enough.
"""

from __future__ import annotations

import logging
import ssl
import time
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps

logger = logging.getLogger(__name__)

#: Seconds for which the bindings that other processes have declared are believed.
BINDINGS_TTL = 5.0


class ChannelMixin:
    """What differs from kombu's channel."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._tables: dict[str, tuple[float, list[Any]]] = {}
        super().__init__(*args, **kwargs)

    def basic_publish(
        self: Any, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any
    ) -> Any:
        batched = kwargs.get("_publish_batch") is not None
        if not exchange or batched or self.typeof(exchange).type == "fanout":
            return super().basic_publish(message, exchange, routing_key, **kwargs)  # type: ignore[misc]
        self._inplace_augment_message(message, exchange, routing_key)
        queues = [queue for queue in self._lookup(exchange, routing_key) if queue]
        if any(queue in self._expires for queue in queues):
            for queue in queues:
                self._put(queue, message)
            return None
        priority = self._get_message_priority(message, reverse=False)
        payload = dumps(message)
        with self.conn_or_acquire() as client:
            if len(queues) == 1:
                client.lpush(self._q_for_pri(queues[0], priority), payload)
            elif queues:
                with client.pipeline(transaction=True) as pipe:
                    for queue in queues:
                        pipe.lpush(self._q_for_pri(queue, priority), payload)
                    pipe.execute()
        return None

    def get_table(self: Any, exchange: str) -> list[Any]:
        """The bindings of ``exchange``: this process's own, and those that Redis holds."""
        now = time.monotonic()
        known = self._tables.get(exchange)
        if known is None or now - known[0] > BINDINGS_TTL:
            # Redis may have lost them (an eviction, a flush); our own are still true.
            own = self.state.exchanges.get(exchange, {}).get("table", ())
            table = {*map(tuple, own), *super().get_table(exchange)}  # type: ignore[misc]
            known = self._tables[exchange] = (now, list(table))
        found: list[Any] = known[1]
        return found

    def _queue_bind(self: Any, exchange: str, *args: Any) -> None:
        self._tables.pop(exchange, None)
        super()._queue_bind(exchange, *args)  # type: ignore[misc]

    def queue_unbind(self: Any, queue: str, exchange: str = "", *args: Any, **kwargs: Any) -> Any:
        self._tables.pop(exchange, None)
        return super().queue_unbind(queue, exchange, *args, **kwargs)  # type: ignore[misc]

    def _delete(self: Any, queue: str, exchange: str, *args: Any, **kwargs: Any) -> Any:
        self._tables.pop(exchange, None)
        return super()._delete(queue, exchange, *args, **kwargs)  # type: ignore[misc]


class Channel(ChannelMixin, kombu_redis.Channel):
    """A channel to one Redis server."""


class Transport(kombu_redis.Transport):
    """The transport to one Redis server."""

    Channel = Channel


class SSLTransport(Transport):
    """The transport to one Redis server by TLS, for ``rediss://``."""

    def __init__(self, client: Any, **kwargs: Any) -> None:
        if not client.ssl:
            # kombu knows by its own names of transports alone that this one needs TLS.
            logger.warning(
                "rediss:// without TLS options: the server's certificate is not verified. Add "
                "'?ssl_cert_reqs=required' to the broker URL, or set broker_use_ssl."
            )
            client.ssl = {"ssl_cert_reqs": ssl.CERT_NONE}
        super().__init__(client, **kwargs)


class SentinelChannel(ChannelMixin, kombu_redis.SentinelChannel):
    """A channel to the master that Redis Sentinel names."""


class SentinelTransport(kombu_redis.SentinelTransport):
    """The transport to the master that Redis Sentinel names."""

    Channel = SentinelChannel
