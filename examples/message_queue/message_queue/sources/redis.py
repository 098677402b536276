"""Redis: a message moves from its queue to those that are taken in one step.

kombu pops a message and notes it as taken afterwards: a server that is killed between the two loses
it. It also gives what a dead consumer had back only after the longest time that one may work. Here
one script does both, and what a server has taken stays its own as long as it says so every few
seconds, however long a client works on it.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from time import monotonic
from typing import Any

import redis as redis_client
from kombu.utils.json import loads

from .base import Delivery, Receive, UnreadableError
from .virtual import VirtualSource

#: Seconds for which a taken message is its server's, after the server said so last: no more than
#: this, and no more than the transport option ``visibility_timeout``.
LONGEST_LEASE = 15

#: KEYS: queue, taken messages by tag, their leases' ends by tag. ARGV: tag, seconds.
TAKE = """
local raw = redis.call('RPOP', KEYS[1])
if not raw then return nil end
local now = tonumber(redis.call('TIME')[1])
redis.call('HSET', KEYS[2], ARGV[1], raw)
redis.call('ZADD', KEYS[3], now + ARGV[2], ARGV[1])
return raw
"""
#: The same keys. ARGV: tag.
PUT_BACK = """
local raw = redis.call('HGET', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if raw then redis.call('RPUSH', KEYS[1], raw) end
"""
#: The same keys. Puts back what belongs to nobody any more, the oldest last: it is taken first.
RECOVER = """
local now = tonumber(redis.call('TIME')[1])
local tags = redis.call('ZREVRANGEBYSCORE', KEYS[3], '(' .. now, '-inf', 'LIMIT', 0, 1000)
for _, tag in ipairs(tags) do
  local raw = redis.call('HGET', KEYS[2], tag)
  redis.call('HDEL', KEYS[2], tag)
  redis.call('ZREM', KEYS[3], tag)
  if raw then redis.call('RPUSH', KEYS[1], raw) end
end
return #tags
"""
#: The same keys. ARGV: seconds, tags.
RENEW = """
local now = tonumber(redis.call('TIME')[1])
for i = 2, #ARGV do redis.call('ZADD', KEYS[3], 'XX', now + ARGV[1], ARGV[i]) end
"""


class RedisSource(VirtualSource):
    """Uses kombu's channel to declare queues and to read messages, and scripts for the rest."""

    _client: Any = None

    def __init__(self, app: Any, receive: Receive) -> None:
        super().__init__(app, receive)
        self._taken: dict[str, str] = {}  # tag -> queue
        self._lease = LONGEST_LEASE
        self._renewal_due = 0.0

    def open(self) -> None:
        self._taken.clear()
        super().open()
        self._lease = max(1, min(LONGEST_LEASE, int(self.channel.visibility_timeout)))
        # kombu's own client puts the key prefix before the first key of a script alone.
        self._client = redis_client.Redis(connection_pool=self.channel.pool)
        self._prefix = self.channel.global_keyprefix or ""

    def close(self) -> None:
        with suppress(*self.errors):
            for tag, queue in reversed(list(self._taken.items())):  # the oldest is next then
                self._put_back(queue, tag)
        super().close()

    def take(self, queue: str) -> Any:
        tag = uuid.uuid4().hex
        raw = self._client.eval(TAKE, 3, *self._keys(queue), tag, self._lease)
        if raw is None:
            return None
        self._taken[tag] = queue
        try:
            payload = loads(raw)
            payload["properties"]["delivery_tag"] = tag
            return self.channel.message_to_python(payload)
        except Exception as error:  # Any: whatever a stranger has put there
            self._forget(self._taken.pop(tag), tag)
            raise UnreadableError(error) from None

    def give_up(self, delivery: Delivery, requeue: bool) -> None:
        tag = delivery.message.delivery_tag
        queue = self._taken.pop(tag)
        if requeue:
            self._put_back(queue, tag)
        else:
            self._forget(queue, tag)

    def discard(self, delivery: Delivery) -> None:
        self.settle(delivery, requeue=False, again=True)

    def recover(self) -> None:
        if monotonic() < self._renewal_due:
            return
        self._renewal_due = monotonic() + self._lease / 3
        tags: dict[str, list[str]] = {}
        for tag, queue in self._taken.items():
            tags.setdefault(queue, []).append(tag)
        for queue, mine in tags.items():
            self._client.eval(RENEW, 3, *self._keys(queue), self._lease, *mine)
        for queue in self.queues.values():
            self._client.eval(RECOVER, 3, *self._keys(queue))

    def _keys(self, queue: str) -> tuple[str, str, str]:
        key = f"{self._prefix}{queue}"
        return key, f"{key}.taken", f"{key}.leases"

    def _forget(self, queue: str, tag: str) -> None:
        _, taken, leases = self._keys(queue)
        pipe = self._client.pipeline()
        pipe.hdel(taken, tag).zrem(leases, tag).execute()

    def _put_back(self, queue: str, tag: str) -> None:
        self._client.eval(PUT_BACK, 3, *self._keys(queue), tag)
