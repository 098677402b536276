"""What a task's message says of its place in a queue: the key, and the lease of a delivery."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import fields
from .errors import InvalidField

#: The header by which a worker knows a task that is under a limit.
HEADER = "rate_limited_queue"
#: The header that names the key for people and for the ledger; it is enough to be limited.
QUEUE_ID = "queue_id"
#: The header of a task that the broker had delivered again when it had to wait in its queue.
REDELIVERED = "rate_limited_queue_redelivered"
#: The queue type of tasks that name none.
QUEUE_TYPE = "celery"
#: Tasks of Celery's own that hold a canvas together; they are no work of a key.
_GLUE = ("celery.accumulate", "celery.chord_unlock")


@dataclass(frozen=True)
class Lease:
    """A task's key, and the delivery that it was released by.

    Args:
        queue_type, queue_id: the key.
        job_id: the job that the task is in the queue.
        token: that of the delivery; empty: no delivery has released it.
        interval: what becomes the key's interval in ms, where there is no token; None: as it is.
    """

    queue_type: str
    queue_id: str
    job_id: str = ""
    token: str = ""
    interval: int | None = None

    def headers(self) -> dict[str, Any]:
        """Return the headers of the task's message."""
        words = [self.queue_type, self.queue_id, self.job_id, self.token, self.interval]
        return {QUEUE_ID: self.queue_id, HEADER: words[:4] if self.interval is None else words}

    @classmethod
    def of(cls, request: Any) -> Lease | None:
        """Return what the message of a request says; None where it is under no limit.

        A lease is that of one task. What a message has from another one, as a canvas that a task
        made of itself may, is the key alone.
        """
        headers = request.headers
        if not isinstance(headers, Mapping) or not request.id:
            return None
        if getattr(request, "task", None) in _GLUE:
            return None
        job_id = job_id_of(request.id)
        words: list[Any] = [QUEUE_TYPE, headers.get(QUEUE_ID), "", "", None]
        found = headers.get(HEADER)
        if isinstance(found, (list, tuple)) and len(found) in (4, 5):
            words[: len(found)] = found
        queue_type, queue_id, owner, token, interval = words
        try:
            return cls(
                fields.identifier("queue_type", queue_type),
                fields.identifier("queue_id", queue_id),
                job_id,
                fields.token(token) if owner == job_id else "",
                None if interval is None else fields.interval(interval),
            )
        except InvalidField:
            return None  # a header of the application's own: no key is called so


def job_id_of(task_id: str) -> str:
    """Return the job id of a task: its own id, or a digest where that can be none."""
    try:
        return fields.identifier("task_id", task_id)
    except InvalidField:
        return hashlib.sha256(task_id.encode()).hexdigest()


def put_under(signature: Any, lease: Lease) -> None:
    """Put each task of a signature under a key, in place, but for those that have another.

    Args:
        signature: a signature or a canvas: chains, groups and chords, however nested, and what
            is linked to them (``link``; an errback begins no work of its own).
        lease: the key.
    """
    if isinstance(signature, Mapping):
        put_under(signature["options"].get("link"), lease)
        inner = signature.get("kwargs") or {}
        kind = signature.get("subtask_type")
        if kind in ("chain", "group"):
            put_under(inner.get("tasks"), lease)
        elif kind == "chord":
            put_under(inner.get("header"), lease)
            put_under(inner.get("body"), lease)
        elif signature.get("task") not in _GLUE:
            headers = signature["options"].get("headers") or {}
            if not {HEADER, QUEUE_ID} & headers.keys():
                signature["options"]["headers"] = {**headers, **lease.headers()}
    elif signature is not None:
        for one in signature:
            put_under(one, lease)
