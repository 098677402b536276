"""The queue's store for programs that block: producers and Celery workers, the dispatcher, top."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeVar

from redis.exceptions import NoScriptError, RedisError

from . import clients
from .errors import StoreUnavailable
from .operations import Enqueued, Operation
from .scripts import base_key, script, types_key
from .settings import Settings, load

T = TypeVar("T")


class BlockingStore:
    """Runs operations; safe to share by threads, and after a fork.

    Args:
        settings: where Redis is, and how keys begin.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._client: Any = None

    def run(self, operation: Operation[T]) -> T:
        """Run one operation.

        Raises:
            StoreUnavailable: Redis is away; the operation may have been run all the same.
        """
        base = base_key(self.settings.redis_key_prefix, operation.queue_type)
        found = script(operation.script)
        with self._connected() as client:
            try:
                answer = client.evalsha(found.sha.decode(), 1, base, *operation.arguments)
            except NoScriptError:
                answer = client.eval(found.source, 1, base, *operation.arguments)
        return operation.parse(answer)

    def enqueue(self, operation: Operation[Enqueued]) -> Enqueued:
        """Run an enqueue, with its type marked as one that has jobs; raises as :meth:`run`."""
        self.mark(operation.queue_type)
        return self.run(operation)

    def mark(self, queue_type: str) -> None:
        """Note that a type is in use; raises as :meth:`run`."""
        with self._connected() as client:
            client.zadd(types_key(self.settings.redis_key_prefix), {queue_type: int(time.time())})

    def types(self) -> list[str]:
        """Return the types that may have jobs, sorted; raises as :meth:`run`."""
        with self._connected() as client:
            found = client.zrange(types_key(self.settings.redis_key_prefix), 0, -1)
        return sorted(name.decode() for name in found)

    @contextlib.contextmanager
    def announcements(self, queue_type: str) -> Iterator[Any]:
        """Subscribe to earlier releases of a type for the time of the block; yields redis-py's.

        Raises:
            StoreUnavailable: Redis is away.
        """
        with self._connected() as client, client.pubsub() as subscription:
            subscription.subscribe(base_key(self.settings.redis_key_prefix, queue_type) + "w")
            yield subscription

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        try:
            if self._client is None:
                self._client = clients.blocking(self.settings)
            yield self._client
        except NoScriptError:
            raise
        except (RedisError, OSError) as error:
            remedy = ""
            if self.settings.redis_conn_type == "embedded":
                remedy = (
                    ". The embedded store runs beside `rate-limited-queue serve` in the same"
                    " folder; set RLQ_CONFIG if another Redis was meant"
                )
            raise StoreUnavailable(f"Redis is away: {error}{remedy}") from error


@lru_cache(maxsize=8)
def _store(settings: Settings) -> BlockingStore:
    return BlockingStore(settings)


def default_store() -> BlockingStore:
    """Return the store that the environment names (``RLQ_CONFIG`` and the other variables).

    Raises:
        SettingsError: a setting is wrong.
    """
    return _store(load())
