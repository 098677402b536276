"""The Celery worker's side: a task that begins when its limit lets it, and finishes its job."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, TypeVar

from celery import Task, signals
from celery.exceptions import Ignore, Reject, Retry
from kombu.utils import json as kombu_json

from cadasta.workertoolbox.routing.names import plain_routing_key

from . import operations
from .blocking import BlockingStore, default_store
from .errors import NotDue, StoreUnavailable
from .leases import REDELIVERED, Lease, put_under

logger = logging.getLogger(__name__)

#: Seconds between two attempts while the store is away.
RETRY = 1.0
#: Seconds that the store's word to begin may be under way; above, it is told when it arrived.
LATE = 0.001
#: Retries of one replacement, at most, that are told apart from the next one's.
_RETRIES = 1_000_000

#: The mark of a run that has published a retry and has gone on, ``retry(throw=False)``.
_GOES_ON = "rate_limited_queue_goes_on"

T = TypeVar("T")


class LimitedTask(Task):  # type: ignore[misc, unused-ignore]
    """The class of all tasks of an app: ``Celery(..., task_cls="rate_limited_queue:LimitedTask")``.

    A task whose message names no key runs as any other. One that is under a limit

    - begins only where the limit lets it, whatever brought it to the worker: a dispatcher, a retry,
      a rejection, a replacement, a redelivery, a canvas, or ``apply_async`` with its key. Else it
      goes back to its queue as it is, with its retries, and a dispatcher publishes it when it is
      due; its state is RETRY until then, with :class:`~.errors.NotDue` as the reason;
    - begins only if no other run of it goes on; while the store is away it waits, and then goes
      back to the broker;
    - keeps its lease for as long as it runs;
    - finishes its job when it has succeeded or failed for good, and when it was revoked, had
      expired, was rejected or replaced. A worker that is lost finishes nothing: the lease ends, and
      the task is dispatched again.
    """

    abstract = True
    Request = "rate_limited_queue.worker:LimitedRequest"

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
        asked = time.monotonic()
        try:
            lease = self._begin(lease, store)
        except StoreUnavailable as error:
            # It has not run: it must not fail, which would finish its job.
            raise Reject(error, requeue=True) from error
        if lease is None:
            return super().__call__(*args, **kwargs)
        with _kept(store, lease, expiry, time.monotonic() - asked > LATE):
            try:
                return super().__call__(*args, **kwargs)
            except Reject as error:  # No signal tells of this one and the next.
                if not error.requeue:  # else LimitedRequest.reject() knows
                    finish_job(self)
                raise
            except Ignore:  # replace() raises it, too.
                finish_job(self)
                raise

    def retry(self, *args: Any, throw: bool = True, **options: Any) -> Any:
        """Retry the task, as Celery does: its lease goes along, beside headers that are named."""
        lease = None if self.request.is_eager else Lease.of(self.request)
        if lease is None:
            return super().retry(*args, throw=throw, **options)
        if options.get("headers") is not None:
            options["headers"] = {**options["headers"], **lease.headers()}
        reason = super().retry(*args, throw=throw, **options)
        # No signal tells of this retry, and the job ends with it, not with this run.
        setattr(self.request, _GOES_ON, True)
        wait_for_retry(self, self.request, reason)
        return reason

    def replace(self, sig: Any) -> Any:
        """Replace the task, as Celery does: the limit holds for what takes its place, too."""
        lease, headers = Lease.of(self.request), self.request.headers
        if lease is None:
            return super().replace(sig)
        key = dataclasses.replace(lease, job_id="", token="", interval=None)
        put_under(sig, key)
        # The toolbox hands the headers on. The lease ends with this task.
        self.request.headers = {**headers, **key.headers()}
        try:
            return super().replace(sig)
        finally:
            self.request.headers = headers

    def _begin(self, lease: Lease, store: BlockingStore) -> Lease | None:
        """Begin; the lease of this run, None where there is no limit.

        Raises:
            Retry: it may not begin yet, and is in its queue; or another run of it goes on.
            Ignore: its job has ended already.
            StoreUnavailable: Redis is away.
        """
        settings = store.settings
        expiry, place = settings.job_expire_interval, (lease.queue_type, lease.queue_id)
        # Named, since its question may be asked twice.
        run = (rank_of(self.request), uuid.uuid4().hex)

        def ask(operation: operations.Operation[T]) -> T:
            return _persist(lambda: store.run(operation), expiry / 1000)

        token = lease.token
        if token:
            verdict = ask(operations.begin(*place, lease.job_id, token, expiry, *run))
            if verdict == "wait":
                ask(operations.send_back(*place, lease.job_id, token, self._as_job()))
        else:
            _persist(lambda: store.mark(lease.queue_type), expiry / 1000)
            operation = operations.admit(
                *place,
                lease.job_id,
                self._as_job(),
                lease.interval,
                settings.default_job_requeue_limit,
                expiry,
                *run,
            )
            verdict, token = ask(operation)
        if verdict == "free":
            return None
        if verdict == "gone":
            logger.warning("Task %s is not run: its job has ended already", self.request.id)
            raise Ignore()
        if verdict == "other":
            raise Retry(exc=NotDue("another run of the task goes on, or it waits in its queue"))
        if verdict != "run":
            raise Retry(exc=NotDue(f"the limit of {lease.queue_id}: it waits in its queue"))
        lease = dataclasses.replace(lease, token=token, interval=None)
        # A retry takes it along, and so do the signals that tell of an end.
        headers = self.request.headers = {**self.request.headers, **lease.headers()}
        if headers.pop(REDELIVERED, False):
            self.request.delivery_info = {**self.request.delivery_info, "redelivered": True}
        return lease

    def _as_job(self) -> bytes:
        """The task as it is now, as :func:`~.push.submit` writes it."""
        request = self.request
        sig = self.signature_from_request(request, retries=request.retries)
        options = {name: value for name, value in sig.options.items() if value is not None}
        headers = options.pop("headers", {})
        if options.pop("redelivered", False):
            headers[REDELIVERED] = True
        queue = plain_routing_key(options.get("routing_key") or "")
        if queue in self.app.amqp.queues:
            options["queue"] = queue
            del options["routing_key"]
            options.pop("exchange", None)
        content = {
            "task": self.name,
            "args": list(sig.args),
            "kwargs": dict(sig.kwargs),
            "headers": headers,
            "options": options,
        }
        return str(kombu_json.dumps(content)).encode()


def rank_of(request: Any) -> int:
    """Return the rank of a run: each retry and each replacement has a higher one."""
    nesting = getattr(request, "replaced_task_nesting", 0) or 0
    return int(nesting) * _RETRIES + int(request.retries or 0)


def finish_job(sender: Any = None, **_: Any) -> None:
    """Finish the job of a task that has ended (``task_success``, ``task_failure``)."""
    lease = Lease.of(sender.request) if isinstance(sender, LimitedTask) else None
    if lease is None or getattr(sender.request, _GOES_ON, False):
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


def wait_for_retry(sender: Any = None, request: Any = None, reason: Any = None, **_: Any) -> None:
    """Keep the lease of a task until Celery runs it again (``task_retry``)."""
    lease = Lease.of(request) if isinstance(sender, LimitedTask) else None
    if lease is None or not lease.token or isinstance(getattr(reason, "exc", None), NotDue):
        return
    when = getattr(reason, "when", None) or 0
    if isinstance(when, datetime):
        when = (when - datetime.now(timezone.utc if when.tzinfo else None)).total_seconds()
    store = default_store()
    lasting = store.settings.dispatch_expire_interval + max(0, int(when * 1000))
    try:
        store.run(_renewal(lease, lasting))
    except StoreUnavailable:
        logger.error("The lease of task %s may end early", lease.job_id, exc_info=True)


def _renewal(lease: Lease, lasting: int, begins: bool = False) -> operations.Operation[bool]:
    place = (lease.queue_type, lease.queue_id, lease.job_id, lease.token)
    return operations.renew(*place, lasting, begins=begins)


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
def _kept(store: BlockingStore, lease: Lease, expiry: int, is_late: bool) -> Iterator[None]:
    """Renew a lease again and again for the time of the block.

    Where the store's word to begin was late, the interval counts from when it arrived: the next
    one may be in time.
    """
    over = threading.Event()

    def renew() -> None:
        if is_late:
            with contextlib.suppress(StoreUnavailable):
                store.run(_renewal(lease, expiry, begins=True))
        while not over.wait(expiry / 3000):
            try:
                if not store.run(_renewal(lease, expiry)):
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
