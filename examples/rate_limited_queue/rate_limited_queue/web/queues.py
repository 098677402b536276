"""The calls about queues: interval, metrics, delete, dead jobs, status."""

from __future__ import annotations

import json
from typing import Any

from .. import fields, operations
from ..errors import InvalidField
from ..operations import Metrics
from ..store import Store
from ..waiters import Waiters
from . import openapi, prometheus
from .messages import Answer, BadBody, Request, answer

#: Most bytes of a body that holds no payload.
SMALL = 65_536
#: Most dead jobs of one answer.
MAX_DEAD = 1000


class Queues:
    """Serves the calls about queues.

    Args:
        store: where the queues are.
        waiters: whose count is a metric.
    """

    def __init__(self, store: Store, waiters: Waiters) -> None:
        self._store = store
        self._waiters = waiters

    async def index(self, request: Request) -> Answer:
        """``GET /``: the server runs, be the store there or not."""
        return answer(200, {"message": "Hello, SharQ!"})

    async def deep_status(self, request: Request) -> Answer:
        """``GET /deepstatus/``; raises StoreUnavailable (a 503) where the store is away."""
        # A write: a store that can only be read from serves nobody here.
        key = f"{self._store.settings.redis_key_prefix}:status"
        await self._store.execute("SET", key, "1", "EX", 60)
        return answer(200, {"status": "success"})

    async def interval(self, request: Request) -> Answer:
        """``POST /interval/TYPE/ID/``."""
        queue_type, queue_id = request.parameters
        body = await request.json_object(SMALL)
        if "interval" not in body:
            raise InvalidField("interval", "is a mandatory parameter")
        operation = operations.set_interval(
            fields.identifier("queue_type", queue_type),
            fields.identifier("queue_id", queue_id),
            fields.interval(body["interval"]),
        )
        known = await self._store.run(operation)
        return answer(200 if known else 404, {"status": "success" if known else "failure"})

    async def metrics(self, request: Request) -> Answer:
        """``GET /metrics/``: of all types."""
        types, enqueued, dequeued = [], [0] * 10, [0] * 10
        found: Metrics | None = None
        for queue_type in sorted(await self._store.types()):
            found = await self._store.run(operations.metrics(queue_type))
            if found.ready or found.active:
                types.append(queue_type)
            enqueued = [a + b for a, b in zip(enqueued, found.enqueued, strict=True)]
            dequeued = [a + b for a, b in zip(dequeued, found.dequeued, strict=True)]
        if found is None:  # Any type has the store's minutes.
            found = await self._store.run(operations.metrics("default"))
        minutes = found.minutes
        return answer(
            200, {"status": "success", "queue_types": types, **_counts(minutes, enqueued, dequeued)}
        )

    async def metrics_of_type(self, request: Request) -> Answer:
        """``GET /metrics/TYPE/``."""
        queue_type = fields.identifier("queue_type", request.parameters[0])
        ids = [queue_id async for queue_id in self._store.queue_ids(queue_type)]
        return answer(200, {"status": "success", "queue_ids": ids})

    async def metrics_of_queue(self, request: Request) -> Answer:
        """``GET /metrics/TYPE/ID/``."""
        queue_type, queue_id = request.parameters
        fields.identifier("queue_id", queue_id)
        fields.identifier("queue_type", queue_type)
        found = await self._store.run(operations.metrics(queue_type, queue_id))
        content = {"status": "success", "queue_length": found.queue_length}
        return answer(200, content | _counts(found.minutes, found.enqueued, found.dequeued))

    async def delete(self, request: Request) -> Answer:
        """``DELETE /deletequeue/TYPE/ID/``."""
        queue_type, queue_id = request.parameters
        fields.identifier("queue_id", queue_id)
        fields.identifier("queue_type", queue_type)
        purge = False
        raw = await request.body(SMALL)
        if raw.strip():
            try:
                body = json.loads(raw)
            except (ValueError, RecursionError):
                raise BadBody("The body is not JSON.") from None
            if not isinstance(body, dict):
                raise BadBody("The body has to be a JSON object.")
            purge = body.get("purge_all", False)
            if not isinstance(purge, bool):
                raise InvalidField("purge_all")
        if not await self._store.delete(queue_type, queue_id, purge):
            return answer(200, {"status": "Failure", "message": "No queued calls found"})
        message = "Successfully removed all queued calls"
        if purge:
            message += " and purged related resources"
        return answer(200, {"status": "Success", "message": message})

    async def dead(self, request: Request) -> Answer:
        """``GET /dead/TYPE/``, the oldest first; ``?count=`` and ``?offset=`` for pages."""
        queue_type = fields.identifier("queue_type", request.parameters[0])
        count = int(request.query_number("count", MAX_DEAD, MAX_DEAD))
        if count < 1:
            raise InvalidField("count")
        offset = int(request.query_number("offset", 0, fields.MAX_COUNT))
        total, jobs = await self._store.dead(queue_type, count, offset)
        body = b'{"status":"success","total":%d,"jobs":[%b]}' % (total, b",".join(jobs))
        return Answer(200, body)

    async def forget_dead(self, request: Request) -> Answer:
        """``DELETE /dead/TYPE/``."""
        queue_type = fields.identifier("queue_type", request.parameters[0])
        removed = await self._store.forget_dead(queue_type)
        return answer(200, {"status": "success", "removed": removed})

    async def prometheus(self, request: Request) -> Answer:
        """``GET /prometheus/``: what the store has, in Prometheus' text format."""
        found = {
            queue_type: await self._store.run(operations.metrics(queue_type))
            for queue_type in sorted(await self._store.types())
        }
        text = prometheus.exposition(found, self._waiters.waiting)
        return Answer(200, text.encode(), prometheus.CONTENT_TYPE)

    async def document(self, request: Request) -> Answer:
        """``GET /openapi.json``."""
        return answer(200, openapi.document(self._store.settings.max_wait))


def _counts(minutes: list[int], enqueued: list[int], dequeued: list[int]) -> dict[str, Any]:
    return {
        "enqueue_counts": {str(m): n for m, n in zip(minutes, enqueued, strict=True)},
        "dequeue_counts": {str(m): n for m, n in zip(minutes, dequeued, strict=True)},
    }
