"""A task's message in a worker's main process: what goes back to the broker may begin again."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.request import Request

from . import operations
from .blocking import default_store
from .errors import StoreUnavailable
from .leases import Lease
from .tasks import rank_of

logger = logging.getLogger(__name__)


class LimitedRequest(Request):  # type: ignore[misc, unused-ignore]
    """The request of a :class:`~.tasks.LimitedTask`."""

    def reject(self, requeue: bool = False) -> Any:
        """Give the message back: because the task said so, or since its pool process was lost.

        Its run is over then. That the broker delivers the message again is no proof of it: what was
        not acknowledged in time comes again as well, while the first run goes on.
        """
        context = self._context
        lease = Lease.of(context) if requeue else None
        if lease is not None:
            try:
                store = default_store()
                lasting = store.settings.dispatch_expire_interval
                place = (lease.queue_type, lease.queue_id, lease.job_id, lease.token)
                store.run(operations.renew(*place, lasting, rank_of(context)))
            except StoreUnavailable:
                logger.error("Task %s comes back when its lease ends", self.id, exc_info=True)
        return super().reject(requeue=requeue)
