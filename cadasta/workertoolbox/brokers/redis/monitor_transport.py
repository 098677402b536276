"""How the monitor takes messages from Redis: without a moment in which one could be lost.

kombu's own consumer pops a message and notes it as unacknowledged in a second step: a process
killed between the two loses it. It also keeps one ``unacked`` hash for all consumers, in which the
monitor's copy and the worker's message bear the same delivery tag, so that the acknowledgement of
one erases the other. Here one script moves a message into the monitor's own hash, and a message
that is given back goes to the monitor queue alone.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from hashlib import sha1
from typing import Any

import redis
from kombu.transport import virtual

logger = logging.getLogger(__name__)

#: Seconds between two looks at an empty queue.
POLL_INTERVAL = 0.1
#: Seconds between two looks for messages of a monitor that died.
RESTORE_INTERVAL = 5.0

#: Seconds that Redis may take to answer. A monitor waits for two such answers at most before it
#: ends; what it did not hear of is given to it again.
ANSWER_TIMEOUT = 3.0

#: KEYS: unacked hash, index, then the queue's lists by priority. ARGV: now, most messages.
TAKE = """
local taken = {}
for i = 3, #KEYS do
  while #taken < tonumber(ARGV[2]) do
    local raw = redis.call('RPOP', KEYS[i])
    if not raw then break end
    local tag = redis.sha1hex(raw)
    redis.call('HSET', KEYS[1], tag, raw)
    redis.call('ZADD', KEYS[2], ARGV[1], tag)
    taken[#taken + 1] = raw
  end
end
return taken
"""
#: KEYS: unacked hash, index, queue. ARGV: tags to give back.
GIVE_BACK = """
for _, tag in ipairs(ARGV) do
  local raw = redis.call('HGET', KEYS[1], tag)
  redis.call('HDEL', KEYS[1], tag)
  redis.call('ZREM', KEYS[2], tag)
  if raw then redis.call('RPUSH', KEYS[3], raw) end
end
"""


class QoS(virtual.QoS):
    """Acknowledges in the monitor's own hash."""

    def ack(self, delivery_tag: str) -> None:
        self.channel.forget([delivery_tag])
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if requeue:
            self.channel.give_back([delivery_tag])
        else:
            self.channel.forget([delivery_tag])
        super().ack(delivery_tag)

    def restore_unacked(self) -> list[Any]:
        self._flush()
        self.channel.give_back(list(self._delivered))
        self._delivered.clear()
        return []


class ChannelMixin:
    """What differs from kombu's channel; it consumes one queue."""

    QoS = QoS
    _restored_at = 0.0

    @property
    def _plain(self: Any) -> Any:
        # kombu's client puts the key prefix before the first key of a script only
        return redis.Redis(connection_pool=self.pool)

    def _keys(self: Any, *names: str) -> list[str]:
        return [f"{self.global_keyprefix}{name}" for name in names]

    def _monitor_keys(self: Any) -> list[str]:
        queue = self._active_queues[0]
        keys: list[str] = self._keys(f"{queue}.unacked", f"{queue}.unacked_index")
        return keys

    def take(self: Any) -> int:
        """Deliver what the prefetch window allows; the number of messages."""
        if not self._active_queues or not self.qos.can_consume():
            return 0
        room = self.qos.can_consume_max_estimate()
        queue = self._active_queues[0]
        lists = self._keys(*(self._q_for_pri(queue, pri) for pri in self.priority_steps))
        keys = [*self._monitor_keys(), *lists]
        most = 100 if room is None else room
        taken = self._plain.eval(TAKE, len(keys), *keys, time.time(), min(most, 1000))
        for raw in taken:
            self.connection._deliver(_payload(raw, queue), queue)
        return len(taken)

    def forget(self: Any, tags: list[str]) -> None:
        """Acknowledge several messages in one round trip."""
        if tags:
            unacked, index = self._monitor_keys()
            pipe = self._plain.pipeline()
            pipe.hdel(unacked, *tags).zrem(index, *tags).execute()

    def give_back(self: Any, tags: list[str]) -> None:
        if tags:
            keys = [*self._monitor_keys(), *self._keys(self._active_queues[0])]
            self._plain.eval(GIVE_BACK, len(keys), *keys, *tags)

    def restore_abandoned(self: Any) -> None:
        """Give back what a monitor took longer than ``visibility_timeout`` ago."""
        now = time.time()
        if not self._active_queues or now - self._restored_at < RESTORE_INTERVAL:
            return
        self._restored_at = now
        oldest = now - self.visibility_timeout
        tags = self._plain.zrangebyscore(self._monitor_keys()[1], 0, oldest, start=0, num=1000)
        mine = self.qos._delivered  # a long outage of the database: still held, not abandoned
        self.give_back([t for t in map(_text, tags) if t not in mine])

    def basic_ack_many(self: Any, tags: list[str]) -> None:
        """Acknowledge ``tags`` at once."""
        self.forget(tags)
        for tag in tags:
            virtual.QoS.ack(self.qos, tag)

    def close(self: Any) -> None:
        if not self.closed and self._qos is not None and self._active_queues:
            try:
                self._qos.restore_unacked_once()
            except Exception as exc:  # they are given back after ``visibility_timeout``
                logger.debug("Giving messages back failed: %s", type(exc).__name__)
                self._qos._delivered.clear()
        super().close()  # type: ignore[misc]


class TransportMixin:
    """Looks at the queue instead of waiting in BRPOP, whose reply a killed process would lose."""

    def drain_events(self: Any, connection: Any, timeout: float | None = None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            for channel in self.channels:
                channel.restore_abandoned()
                if channel.take():
                    return
            left = POLL_INTERVAL if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            time.sleep(min(POLL_INTERVAL, left))


def limits(options: Mapping[str, Any]) -> dict[str, float]:
    """The monitor's transport options that differ from the user's ``options``."""
    names = ("socket_timeout", "socket_connect_timeout")
    return {name: min(options.get(name) or ANSWER_TIMEOUT, ANSWER_TIMEOUT) for name in names}


def transport_for(transport_cls: type) -> type:
    """The monitor's transport that does what kombu's ``transport_cls`` does (Redis, Sentinel)."""
    channel = type("Channel", (ChannelMixin, transport_cls.Channel), {})  # type: ignore[attr-defined]
    return type("Transport", (TransportMixin, transport_cls), {"Channel": channel})


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _payload(raw: bytes | str, queue: str) -> dict[str, Any]:
    """kombu's form of a stored message; what is none becomes a message of that very body."""
    data = raw.encode() if isinstance(raw, str) else raw
    tag = sha1(data, usedforsecurity=False).hexdigest()
    try:
        payload = json.loads(data)
        payload["properties"]["delivery_tag"] = tag
        payload["properties"].setdefault("delivery_info", {})
    except (ValueError, TypeError, KeyError, RecursionError):
        return {
            "body": _text(data.decode("utf-8", "backslashreplace")),
            "content-type": None,
            "headers": {},
            "properties": {"delivery_tag": tag, "delivery_info": {"routing_key": queue}},
        }
    return dict(payload)
