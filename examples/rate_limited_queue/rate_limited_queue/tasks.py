"""The Celery worker's side: a task that keeps its lease while it runs, and finishes its job."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

from celery import Task, signals
from celery.exceptions import Ignore, Reject

from . import operations
from .blocking import BlockingStore, default_store
from .errors import StoreUnavailable

logger = logging.getLogger(__name__)

#: The header by which a worker knows a dispatched task.
HEADER = "rate_limited_queue"
#: Seconds between two attempts while the store is away.
RETRY = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class Lease:
    """What a dispatched task's message says of its job."""

    queue_type: str
    queue_id: str
    job_id: str
    token: str

    def header(self) -> list[str]:
        """Return the value of the message's header."""
        return [self.queue_type, self.queue_id, self.job_id, self.token]

    @classmethod
    def of(cls, request: Any) -> Lease | None:
        """Return the lease of a running task's request; None where it was not dispatched."""
        found = (request.headers or {}).get(HEADER)
        return cls(*found) if found else None


class LimitedTask(Task):  # type: ignore[misc, unused-ignore]
    """The class of all tasks of an app: ``Celery(..., task_cls="rate_limited_queue:LimitedTask")``.

    A task that was not dispatched by a queue runs as any other. One that was

    - begins only if its lease is current: after a lost lease another copy is under way; while the
      store is away it waits, and then goes back to the broker;
    - keeps its lease for as long as it runs;
    - finishes its job when it has succeeded or failed for good, and when it was revoked, had
      expired, was rejected or replaced. A worker that is lost finishes nothing: the lease ends, and
      the task is dispatched again.
    """

    abstract = True

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Listen to how tasks end; calling it again changes nothing."""
        for signal, receiver in (
            (signals.task_success, finish_job),
            (signals.task_failure, finish_job),
            (signals.task_retry, wait_for_retry),
            (signals.task_revoked, finish_revoked),
        ):
            name = f"rate_limited_queue.{receiver.__name__}"
            signal.connect(receiver, weak=False, dispatch_uid=name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task, as the worker does."""
        lease = None if self.request.called_directly else Lease.of(self.request)
        if lease is None:
            return super().__call__(*args, **kwargs)
        store = default_store()
        expiry = store.settings.job_expire_interval
        begin = _renewal(lease, expiry, starts=True)
        try:
            is_ours = _persist(lambda: store.run(begin), expiry / 1000)
        except StoreUnavailable as error:
            # It has not run: it must not fail, which would finish its job.
            raise Reject(error, requeue=True) from error
        if not is_ours:
            logger.warning("Task %s is not run: its lease was lost or is over", lease.job_id)
            raise Ignore()
        with _kept(store, lease, expiry):
            try:
                return super().__call__(*args, **kwargs)
            except Reject as error:  # No signal tells of this one and the next.
                (wait_for_retry if error.requeue else finish_job)(self)
                raise
            except Ignore:  # replace() raises it, too.
                finish_job(self)
                raise


def finish_job(sender: Any = None, **_: Any) -> None:
    """Finish the job of a task that has ended (``task_success``, ``task_failure``)."""
    lease = Lease.of(sender.request) if isinstance(sender, LimitedTask) else None
    if lease is None:
        return
    store = default_store()
    operation = operations.finish(lease.queue_type, lease.queue_id, lease.job_id, lease.token)
    try:
        _persist(lambda: store.run(operation), store.settings.job_expire_interval / 1000)
    except StoreUnavailable:
        logger.error("Task %s has ended, but may be dispatched again", lease.job_id, exc_info=True)


def finish_revoked(sender: Any = None, request: Any = None, **_: Any) -> None:
    """Finish the job of a task that will not run, or was terminated (``task_revoked``).

    Its queue id would release nothing more until the lease ends, and then dispatch it again.
    """
    lease = Lease.of(request) if isinstance(sender, LimitedTask) else None
    if lease is None:
        return
    try:
        # Once: this is the process that keeps the worker's connections alive.
        default_store().run(
            operations.finish(lease.queue_type, lease.queue_id, lease.job_id, lease.token)
        )
    except StoreUnavailable:
        logger.error("Task %s is revoked, but may be dispatched again", lease.job_id, exc_info=True)


def wait_for_retry(sender: Any = None, reason: Any = None, **_: Any) -> None:
    """Keep the lease of a task until Celery runs it again (``task_retry``)."""
    lease = Lease.of(sender.request) if isinstance(sender, LimitedTask) else None
    if lease is None:
        return
    when = getattr(reason, "when", None) or 0
    if isinstance(when, datetime):
        when = (when - datetime.now(timezone.utc if when.tzinfo else None)).total_seconds()
    store = default_store()
    lasting = store.settings.dispatch_expire_interval + max(0, int(when * 1000))
    try:
        store.run(_renewal(lease, lasting, starts=False))
    except StoreUnavailable:
        logger.error("The lease of task %s may end early", lease.job_id, exc_info=True)


def _renewal(lease: Lease, lasting: int, starts: bool) -> operations.Operation[bool]:
    return operations.begin(
        lease.queue_type, lease.queue_id, lease.job_id, lease.token, lasting, starts
    )


def _persist(call: Callable[[], T], seconds: float) -> T:
    """Call until the store answers, for some seconds; then its error passes through."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except StoreUnavailable as error:
            if time.monotonic() + RETRY > deadline:
                raise
            logger.warning("Waiting for the store: %s", error)
            time.sleep(RETRY)


@contextlib.contextmanager
def _kept(store: BlockingStore, lease: Lease, expiry: int) -> Iterator[None]:
    """Renew a lease again and again for the time of the block."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(expiry / 3000):
            try:
                if not store.run(_renewal(lease, expiry, starts=False)):
                    logger.warning("Task %s has lost its lease", lease.job_id)
                    return
            except StoreUnavailable as error:
                logger.warning("The lease of task %s was not renewed: %s", lease.job_id, error)

    thread = threading.Thread(target=renew, name=f"lease-{lease.job_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
