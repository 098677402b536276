"""Celery tasks under a limit: producers submit them, and change the limits."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from kombu.utils import json as kombu_json

from . import fields, operations
from .blocking import BlockingStore, default_store
from .errors import InvalidField, RateLimitedQueueError, UnknownQueue
from .leases import QUEUE_TYPE, Lease, put_under
from .tasks import LimitedTask

#: Options of ``apply_async`` that would go past the limit, or that the queue sets itself.
_REFUSED = ("countdown", "eta", "link", "link_error", "chord", "group_id", "task_id")


class DuplicateTask(RateLimitedQueueError):
    """A task with this id waits or is active already."""


def submit(
    task: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    queue_id: str,
    interval: int | None = None,
    queue_type: str = QUEUE_TYPE,
    task_id: str | None = None,
    requeue_limit: int | None = None,
    headers: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Put a Celery task under the limit of a queue id, and return its ``AsyncResult``.

    A dispatcher (``rate-limited-queue dispatch``) publishes it when it is due. The ledger knows it
    from then on; it can be found there by the header ``queue_id``.

    Args:
        task: a task of an app made with ``task_cls="rate_limited_queue:LimitedTask"``.
        args, kwargs: the task's arguments; JSON, as Celery's.
        queue_id: what is limited, such as a customer.
        interval: least milliseconds between two tasks of the queue id; it becomes the interval of
            all that wait there. None keeps the interval that the queue id has.
        queue_type: the dispatcher's ``--type``.
        task_id: default a random UUID.
        requeue_limit: how often the task may be dispatched again after a worker was lost; -1: for
            ever; default ``default_job_requeue_limit``.
        headers: further headers of the task's message.
        options: options of ``apply_async``, such as ``priority`` or ``queue``; JSON.

    Raises:
        InvalidField: an argument is wrong.
        UnknownQueue: ``interval`` is None and the queue id has none.
        DuplicateTask: a task with this id waits or is active there.
        TypeError: the task takes no such arguments, or it is no :class:`LimitedTask`.
        StoreUnavailable: Redis is away; the task may have been queued all the same.
    """
    if not isinstance(task, LimitedTask):
        raise TypeError(
            f"{task!r} is no LimitedTask, so nobody would finish it in the queue: make its app "
            'with Celery(..., task_cls="rate_limited_queue:LimitedTask").'
        )
    for name in _REFUSED:
        if name in options:
            raise InvalidField(name, "cannot be given here: the queue decides when a task is due.")
    if task.typing:
        task.__header__(*args, **(kwargs or {}))
    store = default_store()
    limit = requeue_limit
    if limit is None:
        limit = store.settings.default_job_requeue_limit
    task_id = fields.identifier("task_id", task_id or str(uuid.uuid4()))
    content = {
        "task": task.name,
        "args": list(args),
        "kwargs": dict(kwargs or {}),
        "headers": dict(headers or {}),
        "options": options,
    }
    # kombu writes what JSON has no word for (dates, UUIDs) as Celery's messages do.
    plain = json.loads(kombu_json.dumps(content))
    operation = operations.enqueue(
        fields.identifier("queue_type", queue_type),
        fields.identifier("queue_id", queue_id),
        task_id,
        fields.payload_text(plain, store.settings.max_payload_bytes),
        None if interval is None else fields.interval(interval),
        fields.requeue_limit(limit),
    )
    status = store.enqueue(operation).status
    if status == "unknown":
        raise UnknownQueue(f"The queue id {queue_id!r} has no interval yet: give one.")
    if status == "duplicate":
        raise DuplicateTask(f"The task {task_id} of {queue_id!r} waits or is active already.")
    return task.AsyncResult(task_id)


def limited(
    signature: Any,
    *,
    queue_id: str,
    interval: int | None = None,
    queue_type: str = QUEUE_TYPE,
) -> Any:
    """Put each task of a signature under the limit of a queue id, in place, and return it.

    For what :func:`submit` cannot take: steps of chains, members of groups and chords, callbacks,
    tasks with a countdown. They are published as any other, by Celery. When a worker takes one it
    begins at once if the limit lets it, and else waits in the queue until a dispatcher publishes it
    again.

    Args:
        signature: a signature, or a canvas. Tasks that are under a limit already stay there.
        queue_id, interval, queue_type: as in :func:`submit`; where the queue id has no interval,
            and none is given, there is no limit.

    Raises:
        InvalidField: an argument is wrong.
    """
    lease = Lease(
        fields.identifier("queue_type", queue_type),
        fields.identifier("queue_id", queue_id),
        interval=None if interval is None else fields.interval(interval),
    )
    put_under(signature, lease)
    return signature


class Limit:
    """The limit of one queue id.

    Args:
        store: where it is kept.
        queue_type, queue_id: which.
    """

    def __init__(self, store: BlockingStore, queue_type: str, queue_id: str) -> None:
        self._store = store
        self._queue_type = queue_type
        self._queue_id = queue_id

    def __repr__(self) -> str:
        return f"Limit({self._queue_type!r}, {self._queue_id!r})"

    @property
    def interval(self) -> int:
        """Least milliseconds between two releases. A change counts from the last release, at once.

        Raises:
            UnknownQueue: the queue id has neither tasks nor a limit to keep.
            InvalidField: what is set is no interval.
            StoreUnavailable: Redis is away.
        """
        found = self._store.run(operations.metrics(self._queue_type, self._queue_id)).interval
        if found is None:
            raise self._unknown()
        return found

    @interval.setter
    def interval(self, value: int) -> None:
        value = fields.interval(value)
        if not self._store.run(operations.set_interval(self._queue_type, self._queue_id, value)):
            raise self._unknown()

    @property
    def waiting(self) -> int:
        """How many tasks wait; raises StoreUnavailable."""
        return self._store.run(operations.metrics(self._queue_type, self._queue_id)).queue_length

    def _unknown(self) -> UnknownQueue:
        return UnknownQueue(
            f"The queue id {self._queue_id!r} is not known: nothing waits or runs there, and its "
            "last interval is over. Give the interval to submit()."
        )


def limit_for(queue_id: str, queue_type: str = QUEUE_TYPE) -> Limit:
    """Return the limit of a queue id.

    Raises:
        InvalidField: an argument is wrong.
        SettingsError: a setting is wrong.
    """
    return Limit(
        default_store(),
        fields.identifier("queue_type", queue_type),
        fields.identifier("queue_id", queue_id),
    )
