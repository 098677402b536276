"""The calls that move jobs: enqueue, dequeue, finish, and the look at one job."""

from __future__ import annotations

import asyncio
from typing import Any

from .. import fields, operations
from ..errors import InvalidField
from ..operations import Delivery, Enqueued, Operation
from ..settings import Settings
from ..store import Store
from ..waiters import Waiters
from .messages import Answer, BadBody, Disconnected, Request, answer

#: Most jobs of a batch.
MAX_BATCH = 1000
#: Bytes of a body beside its payload.
ENVELOPE = 65_536
#: Most bytes of the body of a batch, where a single payload is not allowed to be larger.
BATCH_BYTES = 16 * 1_048_576

QUEUED = Answer(201, b'{"status":"queued"}')
DUPLICATE = Answer(200, b'{"status":"queued","duplicate":true}')
SUCCESS = Answer(200, b'{"status":"success"}')
NOTHING = Answer(404, b'{"status":"failure"}')


class Jobs:
    """Serves the calls that move jobs.

    Args:
        store: where the jobs are.
        waiters: who waits for them.
    """

    def __init__(self, store: Store, waiters: Waiters) -> None:
        self._store = store
        self._waiters = waiters
        self._settings: Settings = store.settings
        self._max_body = self._settings.max_payload_bytes + ENVELOPE
        self._max_batch_body = max(self._max_body, BATCH_BYTES)

    async def enqueue(self, request: Request) -> Answer:
        """``POST /enqueue/TYPE/ID/``."""
        queue_type, queue_id = request.parameters
        body = await request.json_object(self._max_body)
        body["queue_id"] = queue_id  # What the URL says wins.
        operation, limited = self._enqueue_operation(queue_type, body)
        return _enqueued_answer(await self._store.enqueue(operation), limited)

    async def enqueue_batch(self, request: Request) -> Answer:
        """``POST /enqueue/TYPE/``: a list of jobs, all or (one being invalid) none of them."""
        queue_type = fields.identifier("queue_type", request.parameters[0])
        made = []
        for index, one in enumerate(await self._batch(request)):
            try:
                made.append(self._enqueue_operation(queue_type, one))
            except InvalidField as error:
                raise InvalidField(f"jobs[{index}].{error.field}", error.problem) from None
        await self._store.mark(queue_type)
        found = await asyncio.gather(*(self._store.run(operation) for operation, _ in made))
        answers = [_enqueued(one, limited) for one, (_, limited) in zip(found, made, strict=True)]
        return answer(201, {"status": "queued", "jobs": answers})

    async def _batch(self, request: Request) -> list[dict[str, Any]]:
        body = await request.json(self._max_batch_body)
        jobs = body.get("jobs") if isinstance(body, dict) else body
        if not isinstance(jobs, list) or not all(isinstance(one, dict) for one in jobs):
            raise BadBody('The body has to be a list of jobs, or {"jobs": [...]}.')
        if len(jobs) > MAX_BATCH:
            raise BadBody(f"The batch has {len(jobs)} jobs; the limit is {MAX_BATCH}.")
        return jobs

    def _enqueue_operation(
        self, queue_type: str, body: dict[str, Any]
    ) -> tuple[Operation[Enqueued], bool]:
        for name in ("interval", "job_id", "payload"):
            if name not in body:
                raise InvalidField(name, "is a mandatory parameter")
        limit = body.get("requeue_limit")
        if limit is None:
            limit = self._settings.default_job_requeue_limit
        payload = body["payload"]
        interval = fields.interval(body["interval"])
        job_id = fields.identifier("job_id", body["job_id"])
        queue_id = fields.identifier("queue_id", body.get("queue_id"))
        fields.identifier("queue_type", queue_type)
        fields.requeue_limit(limit)
        text = fields.payload_text(payload, self._settings.max_payload_bytes)
        most = payload.get("max_queued_length")
        if most is not None:
            fields.whole_number("max_queued_length", most, 0, fields.MAX_COUNT)
        operation = operations.enqueue(queue_type, queue_id, job_id, text, interval, limit, most)
        return operation, most is not None

    async def dequeue(self, request: Request) -> Answer:
        """``GET /dequeue/`` and ``GET /dequeue/TYPE/``, with ``?wait=`` seconds and ``?count=``."""
        queue_type = request.parameters[0] if request.parameters else "default"
        fields.identifier("queue_type", queue_type)
        count, wait, batch = 1, 0.0, False
        if request.scope["query_string"]:
            count = int(request.query_number("count", 1, MAX_BATCH))
            if count < 1:
                raise InvalidField("count")
            wait = request.query_number("wait", 0.0, self._settings.max_wait, whole=False)
            batch = "count" in request.query
        jobs = await self._take(request, queue_type, count, wait)
        if not jobs:
            return NOTHING
        if batch:
            return Answer(200, b'{"status":"success","jobs":[%b]}' % b",".join(map(_job, jobs)))
        return Answer(200, _job(jobs[0]))

    async def _take(
        self, request: Request, queue_type: str, count: int, wait: float
    ) -> list[Delivery]:
        if not wait:
            lease = self._settings.job_expire_interval
            found = await self._store.dequeue(operations.dequeue(queue_type, count, lease))
            return found.jobs
        waiting = asyncio.ensure_future(self._waiters.wait(queue_type, count, wait))
        leaving = asyncio.ensure_future(request.disconnected())
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and not waiting.done():
                raise Disconnected("The client has gone.")
            jobs = waiting.result()
            if jobs and leaving.done():
                await self._waiters.give_back(queue_type, jobs)
                raise Disconnected("The client has gone.")
            return jobs
        finally:
            waiting.cancel()
            leaving.cancel()

    async def finish(self, request: Request) -> Answer:
        """``POST /finish/TYPE/ID/JOB/``, with ``?token=`` only the lease that has it."""
        queue_type, queue_id, job_id = request.parameters
        token = request.query.get("token", "") if request.scope["query_string"] else ""
        operation = _finish_operation(queue_type, queue_id, job_id, token)
        return SUCCESS if await self._store.run(operation) else NOTHING

    async def finish_batch(self, request: Request) -> Answer:
        """``POST /finish/``: a list of ``queue_type``, ``queue_id``, ``job_id`` and ``token``."""
        made = []
        for index, one in enumerate(await self._batch(request)):
            try:
                made.append(
                    _finish_operation(
                        one.get("queue_type", "default"),
                        one.get("queue_id"),
                        one.get("job_id"),
                        one.get("token", ""),
                    )
                )
            except InvalidField as error:
                raise InvalidField(f"jobs[{index}].{error.field}", error.problem) from None
        found = await asyncio.gather(*(self._store.run(one) for one in made))
        answers = [{"status": "success" if one else "failure"} for one in found]
        return answer(200, {"status": "success", "jobs": answers})

    async def job(self, request: Request) -> Answer:
        """``GET /job/TYPE/ID/JOB/``."""
        queue_type, queue_id, job_id = request.parameters
        fields.identifier("queue_type", queue_type)
        fields.identifier("queue_id", queue_id)
        fields.identifier("job_id", job_id)
        found = await self._store.run(operations.job(queue_type, queue_id, job_id))
        if found is None:
            return NOTHING
        content: dict[str, Any] = {"status": "success", "state": found.state}
        if found.state == "queued":
            content |= {"jobs_before": found.ahead, "next_release_in": found.next_ms}
        elif found.state == "active":
            content["expires_in"] = found.next_ms
        content["requeues_remaining"] = found.requeues_remaining
        return answer(200, content)


def _enqueued(found: Enqueued, limited: bool) -> dict[str, Any]:
    length = {"current_queue_length": found.waiting} if limited else {}
    if found.status == "full":
        return {"status": "failure", "message": "Max queue length reached", **length}
    if found.status == "duplicate":
        return {"status": "queued", "duplicate": True, **length}
    return {"status": "queued", **length}


def _enqueued_answer(found: Enqueued, limited: bool) -> Answer:
    if not limited:
        return QUEUED if found.status == "queued" else DUPLICATE
    status = {"queued": 201, "duplicate": 200, "full": 429}[found.status]
    return answer(status, _enqueued(found, limited))


def _finish_operation(queue_type: Any, queue_id: Any, job_id: Any, token: Any) -> Operation[bool]:
    return operations.finish(
        fields.identifier("queue_type", queue_type),
        fields.identifier("queue_id", queue_id),
        fields.identifier("job_id", job_id),
        # An empty token means: whatever lease there is.
        fields.token(token),
    )


def _job(job: Delivery) -> bytes:
    # The payload is JSON text already, and identifiers need no quoting.
    return (
        b'{"status":"success","job_id":"%b","queue_id":"%b","requeues_remaining":%d,'
        b'"current_queue_length":%d,"token":"%b","payload":%b}'
        % (
            job.job_id.encode(),
            job.queue_id.encode(),
            job.requeues_remaining,
            job.waiting,
            job.token.encode(),
            job.payload,
        )
    )
