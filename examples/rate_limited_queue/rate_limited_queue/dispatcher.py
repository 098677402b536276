"""Moves each task that is due from the queue into the app's broker."""

from __future__ import annotations

import logging
import time
from typing import Any

from kombu.exceptions import OperationalError
from kombu.utils import json as kombu_json
from redis.exceptions import RedisError

from . import operations
from .blocking import BlockingStore
from .errors import StoreUnavailable
from .leases import Lease
from .operations import Delivery

logger = logging.getLogger(__name__)

#: Most tasks that are taken at once.
BATCH = 50
#: Most seconds until the store is asked again, in case that an announcement was lost.
LONGEST_PAUSE = 5.0
#: Seconds between two attempts while the store or the broker is away.
RETRY = 1.0


class Dispatcher:
    """Publishes due tasks, in the order in which they are due.

    A task is released by the queue with a lease of ``job_expire_interval``. Once it is published
    the lease is ``dispatch_expire_interval``, since it may wait for a worker; its queue id releases
    nothing more until the task has begun. So a limit holds where it counts, at the beginning of the
    work, however long the line before the workers is.

    Args:
        app: the Celery app.
        store: where the tasks wait.
        queue_type: the type whose tasks it dispatches.
    """

    def __init__(self, app: Any, store: BlockingStore, queue_type: str) -> None:
        self._app = app
        self._store = store
        self._type = queue_type
        self._stopping = False

    def stop(self) -> None:
        """Make :meth:`run` return soon; what was taken is published or given back."""
        self._stopping = True

    def run(self) -> None:
        """Dispatch until :meth:`stop`; goes on after outages of store and broker."""
        while not self._stopping:
            try:
                with self._store.announcements(self._type) as announcements:
                    logger.info("Dispatching tasks of the type %s", self._type)
                    while not self._stopping:
                        self._pause(announcements, self.dispatch())
            except (StoreUnavailable, RedisError) as error:
                logger.warning("%s; trying again", error)
                self._sleep(RETRY)

    def dispatch(self) -> float:
        """Publish what is due; the seconds until there may be more.

        Raises:
            StoreUnavailable: Redis is away.
        """
        settings = self._store.settings
        found = self._store.run(
            operations.dequeue(
                self._type, BATCH, settings.job_expire_interval, settings.dispatch_expire_interval
            )
        )
        if found.jobs:
            self._store.mark(self._type)
        for index, job in enumerate(found.jobs):
            if self._stopping:
                self._give_back(found.jobs[index:])
                return 0
            try:
                self._publish(job)
            except OperationalError as error:
                logger.warning("The broker is away: %s", error)
                self._give_back(found.jobs[index:])
                return RETRY
            except StoreUnavailable:
                raise  # What was taken and not published comes back when its lease ends.
            except Exception:
                # One broken task must not stop the others; its lease ends and counts a requeue.
                logger.exception("Task %s of %s was not published", job.job_id, job.queue_id)
        if found.jobs:
            return 0
        return LONGEST_PAUSE if found.wait is None else min(found.wait, LONGEST_PAUSE)

    def _publish(self, job: Delivery) -> None:
        content = kombu_json.loads(job.payload)
        lease = Lease(self._type, job.queue_id, job.job_id, job.token)
        headers = {**content["headers"], **lease.headers()}
        task = self._app.tasks.get(content["task"])
        options = {"task_id": job.job_id, **content["options"], "headers": headers}
        if task is None:
            self._app.send_task(content["task"], content["args"], content["kwargs"], **options)
        else:
            task.apply_async(content["args"], content["kwargs"], **options)
        settings = self._store.settings
        self._store.run(
            operations.sent(
                *(self._type, job.queue_id, job.job_id, job.token),
                lease=settings.dispatch_expire_interval,
                before=settings.job_expire_interval,
            )
        )
        logger.debug("Dispatched task %s of %s", job.job_id, job.queue_id)

    def _give_back(self, jobs: list[Delivery]) -> None:
        for job in jobs:
            self._store.run(operations.give_back(self._type, job.queue_id, job.job_id, job.token))

    def _pause(self, announcements: Any, seconds: float) -> None:
        """Sleep until an earlier release is announced, or for so many seconds."""
        deadline = time.monotonic() + seconds
        while not self._stopping:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            message = announcements.get_message(timeout=min(left, 1.0))
            if message is not None and message["type"] == "message":
                return

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < deadline:
            time.sleep(0.1)
