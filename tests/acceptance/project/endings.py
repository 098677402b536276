"""Tasks that end in each way in which Celery tells no result backend of it.

Imported by the processes whose ``CELERY_IMPORTS`` names it. As a program it publishes them and
prints their ids.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from celery import chain, chord, group
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger
from proj import add, app, total

SECRET = "nobody shall read this"


@app.task(name="export.quiet", ignore_result=True)
def quiet(*args: Any) -> str:
    logging.getLogger("endings").info("plain %s", args)
    get_task_logger("endings").info("of a task %s", args)
    return SECRET


@app.task(name="export.quiet_failure", ignore_result=True)
def quiet_failure(*_: Any) -> None:
    raise ValueError("no such file")


@app.task(name="export.quiet_retry", bind=True, ignore_result=True)
def quiet_retry(self: Any) -> str:
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return SECRET


@app.task(name="export.gives_up", bind=True)
def gives_up(self: Any) -> None:
    raise Ignore


@app.task(name="export.rejected")
def rejected() -> None:
    raise Reject("not now", requeue=True)


@app.task(name="export.replaced_by_two", bind=True)
def replaced_by_two(self: Any) -> Any:
    return self.replace(group(add.s(1, 1), add.s(2, 2)))


@app.task(name="export.first_fails")
def first_fails() -> None:
    raise ValueError("no such file")


def publish() -> dict[str, str]:
    """Publish one of each; return their ids by how they must end."""
    return {
        "SUCCESS quiet": quiet.delay().id,
        "SUCCESS call": add.apply_async((1, 1), ignore_result=True).id,
        "SUCCESS retry": quiet_retry.delay().id,
        "FAILURE quiet": quiet_failure.delay().id,
        "FAILURE rejected": rejected.delay().id,
        "IGNORED gave up": gives_up.delay().id,
        "SUCCESS replaced": replaced_by_two.delay().id,
        "REVOKED expired": quiet.apply_async(expires=-1).id,
        "SUCCESS chain": chain(add.s(1, 1), quiet.s(), add.si(1, 1))().id,
        "SUCCESS chord": chord([add.s(1, 1), quiet.s()], total.si([1]))().id,
    }


def publish_failing_chains(number: int) -> dict[str, str]:
    """Publish chains of three whose first fails; their groups are stored as well."""
    for _ in range(number):
        chain(first_fails.s(), add.si(1, 1), add.si(1, 1))()
        group(first_fails.s(), add.s(1, 1))().save()
    return {}


if __name__ == "__main__":
    what, number = sys.argv[1], int(sys.argv[2])
    print(json.dumps(publish() if what == "each" else publish_failing_chains(number)))
