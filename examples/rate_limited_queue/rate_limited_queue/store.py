"""The queue's store for asyncio: runs operations on Redis or on a Redis cluster."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from redis.exceptions import (
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from . import clients, operations
from .connection import Pipeline
from .errors import StoreUnavailable
from .operations import Operation
from .scripts import base_key, script, types_key
from .settings import Settings

T = TypeVar("T")

#: Seconds between two marks of a type that is in use.
MARK_EVERY = 1.0
#: Jobs that one script call removes or sweeps.
CLEAR_CHUNK = 1000
#: What the server answers while it cannot serve: redis-py's classes, which lose the first word, and
#: the words of the others, with which Redis 6 ends an error of its own where a script met them.
_AWAY_ERRORS = (ClusterDownError, OutOfMemoryError, ReadOnlyError)
_AWAY = re.compile(r"(^|: -)(MISCONF|NOREPLICAS|OOM|READONLY|MASTERDOWN|CLUSTERDOWN|LOADING) ")


class Store:
    """Runs operations; safe to share by all tasks of one event loop.

    Args:
        settings: where Redis is, and how keys begin.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._marked: dict[str, float] = {}
        self._bases: dict[str, str] = {}
        self._cluster: Any = None
        self._pipeline: Pipeline | None = None
        if settings.redis_clustered:
            self._cluster = clients.cluster(settings)
        else:
            self._pipeline = Pipeline(
                lambda: clients.pipelined_connection(settings), settings.redis_timeout
            )

    async def __aenter__(self) -> Store:
        if self._pipeline is not None:
            self._pipeline.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pipeline is not None:
            await self._pipeline.close()
        if self._cluster is not None:
            await self._cluster.aclose()

    async def execute(self, *command: Any) -> Any:
        """Run a Redis command and return its undecoded answer.

        Raises:
            StoreUnavailable: Redis is away; the command may have been run all the same.
        """
        try:
            if self._pipeline is not None:
                return await self._pipeline.execute(*command)
            return await self._cluster.execute_command(*command)
        except NoScriptError:
            raise
        except ResponseError as error:
            if isinstance(error, _AWAY_ERRORS) or _AWAY.search(str(error)):
                raise StoreUnavailable(f"Redis does not serve: {error}") from error
            raise
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            raise StoreUnavailable(f"Redis is away: {error}") from error
        except RedisError as error:
            raise StoreUnavailable(f"Redis failed: {error}") from error

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation.

        Raises:
            StoreUnavailable: Redis is away; the operation may have been run all the same.
        """
        queue_type = operation.queue_type
        base = self._bases.get(queue_type)
        if base is None:
            if len(self._bases) > 10_000:  # Types come from outside.
                self._bases.clear()
            base = self._bases[queue_type] = base_key(self.settings.redis_key_prefix, queue_type)
        found = script(operation.script)
        try:
            answer = await self.execute("EVALSHA", found.sha, 1, base, *operation.arguments)
        except NoScriptError:
            answer = await self.execute("EVAL", found.source, 1, base, *operation.arguments)
        return operation.parse(answer)

    async def enqueue(self, operation: Operation[operations.Enqueued]) -> operations.Enqueued:
        """Run an enqueue, with its type marked as one that has jobs; raises as :meth:`run`."""
        await self.mark(operation.queue_type)
        return await self.run(operation)

    async def dequeue(self, operation: Operation[operations.Deliveries]) -> operations.Deliveries:
        """Run a dequeue, and keep the type of what was taken marked; raises as :meth:`run`."""
        found = await self.run(operation)
        if found.jobs:
            await self.mark(operation.queue_type)
        return found

    async def mark(self, queue_type: str) -> None:
        """Note that a type is in use, so that expired jobs of it are looked for."""
        now = time.monotonic()
        if self._marked.get(queue_type, 0.0) > now - MARK_EVERY:
            return
        if len(self._marked) > 10_000:
            self._marked.clear()
        await self.execute("ZADD", self._types_key, int(time.time()), queue_type)
        self._marked[queue_type] = now

    def recent_types(self, seconds: float) -> list[str]:
        """Return the types that this store has marked in the last ``seconds``."""
        since = time.monotonic() - seconds
        return [queue_type for queue_type, marked in self._marked.items() if marked > since]

    @property
    def _types_key(self) -> str:
        return types_key(self.settings.redis_key_prefix)

    async def types(self) -> dict[str, float]:
        """Return all types that may have jobs, each with when it was last marked (epoch s)."""
        flat = await self.execute("ZRANGE", self._types_key, 0, -1, "WITHSCORES")
        if flat and isinstance(flat[0], (list, tuple)):  # RESP3, or parsed by redis-py
            return {name.decode(): float(score) for name, score in flat}
        return {flat[i].decode(): float(flat[i + 1]) for i in range(0, len(flat), 2)}

    async def unmark(self, queue_type: str, older_than: float) -> None:
        """Forget a type that nobody has marked since ``older_than`` (epoch s)."""
        score = await self.execute("ZSCORE", self._types_key, queue_type)
        if score is not None and float(score) < older_than:
            await self.execute("ZREM", self._types_key, queue_type)

    async def queue_ids(self, queue_type: str) -> AsyncIterator[str]:
        """Yield the queue ids that have waiting or active jobs, each once, in no order."""
        base = base_key(self.settings.redis_key_prefix, queue_type)
        seen: set[bytes] = set()
        for key in ("r", "a"):
            cursor: Any = b"0"
            while True:
                answer = await self.execute("ZSCAN", base + key, cursor, "COUNT", 1000)
                cursor, members = answer[0], answer[1]
                if members and isinstance(members[0], (list, tuple)):
                    names = [member for member, _ in members]
                else:
                    names = members[::2]
                for member in names:
                    queue_id = member.partition(b":")[0]
                    if queue_id not in seen:
                        seen.add(queue_id)
                        yield queue_id.decode()
                if int(cursor) == 0:
                    break

    async def delete(self, queue_type: str, queue_id: str, purge: bool) -> bool:
        """Remove the waiting jobs of a queue, with ``purge`` everything; False if there was none.

        Jobs that are enqueued after it began stay. Redis serves others between its chunks.
        """
        if not purge:
            removed, last = 0, ""
            while True:
                count, last = await self.run(
                    operations.clear(queue_type, queue_id, CLEAR_CHUNK, last)
                )
                removed += count
                if count < CLEAR_CHUNK:
                    return removed > 0
        found, trash = await self.run(operations.purge(queue_type, queue_id))
        cursor = "0"
        while found:
            cursor = await self.run(operations.sweep(queue_type, queue_id, trash, cursor))
            if cursor == "0":
                break
            await asyncio.sleep(0)
        return found

    async def dead(self, queue_type: str, count: int, offset: int) -> tuple[int, list[bytes]]:
        """Return how many dead jobs a type has, and ``count`` of them, as JSON, oldest first."""
        base = base_key(self.settings.redis_key_prefix, queue_type)
        total = await self.execute("ZCARD", base + "d")
        members = await self.execute("ZRANGE", base + "d", offset, offset + count - 1)
        if not members:
            return total, []
        records = await self.execute("HMGET", base + "D", *members)
        return total, [record for record in records if record is not None]

    async def forget_dead(self, queue_type: str) -> int:
        """Remove the dead jobs of a type; how many."""
        base = base_key(self.settings.redis_key_prefix, queue_type)
        total = await self.execute("ZCARD", base + "d")
        await self.execute("UNLINK", base + "d", base + "D")
        return int(total)
