"""What all tasks have in common.

Each task can run again, at any point, also at the same time as itself: the broker delivers a task
again whose worker it believes dead. So each first makes its change in one transaction, which a
second run finds done, and then publishes the next step, under an id that follows from the text. A
second run publishes that step again, unless the next step has left its own trace.
"""

from __future__ import annotations

import random
from typing import Any

from celery import Task

from ..database import TRANSIENT
from ..publishing import again

#: The longest wait, in seconds, for a database that is away.
LONGEST_WAIT = 60.0


class Step(Task):
    """A task that waits for the database: however long it is away, the task is tried again."""

    #: How often is for each task to decide. Celery's own bound (3) would drop the task.
    max_retries = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.run(*args, **kwargs)
        except TRANSIENT as error:
            raise again(self, back_off(self.request.retries, 1.0, LONGEST_WAIT)) from error


def back_off(failures: int, first: float, longest: float) -> float:
    """Seconds to wait after so many failures before: doubled each time, less a random part.

    Without that part, all that failed at once would come back at once.
    """
    wait = min(longest, first * 2.0 ** min(failures, 30))
    return wait * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
