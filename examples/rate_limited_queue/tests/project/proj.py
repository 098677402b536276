"""A Celery app whose tasks are limited; each notes when it ran and by which release."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import Ignore, Reject

from cadasta.workertoolbox import Config

FOLDER = Path(os.environ["PROJECT_FOLDER"])

app = Celery("proj", task_cls="rate_limited_queue:LimitedTask")
app.config_from_object(Config.local(queues=["sms"], directory=FOLDER / "broker", DURABLE=True))


def note(task: Any, *words: object) -> None:
    """Write a line: when, by which release (the store's µs; 0: none), and more words."""
    release = (task.request.headers or {}).get("rate_limited_queue", [0])[-1]
    with open(FOLDER / "notes", "a") as file:
        file.write(" ".join(map(str, (time.time_ns(), release, *words))) + "\n")


@app.task(name="sms.send", bind=True)
def send(self: Any, customer: str, number: int) -> int:
    """Note it."""
    note(self, customer, number)
    return number


@app.task(name="sms.slow", bind=True)
def slow(self: Any, customer: str, seconds: float) -> None:
    """Note it, and take so many seconds."""
    note(self, customer, "slow")
    time.sleep(seconds)


@app.task(name="sms.fail", bind=True)
def fail(self: Any, customer: str) -> None:
    """Note it, and fail."""
    note(self, customer, "fail")
    raise ValueError("on purpose")


@app.task(name="sms.again", bind=True, max_retries=2)
def again(self: Any, customer: str) -> None:
    """Note it, and succeed at the second retry."""
    note(self, customer, "again")
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)


@app.task(name="sms.end", bind=True)
def end(self: Any, how: str) -> None:
    """Note it, and end in a way that Celery calls neither a success nor a failure."""
    note(self, how)
    if how == "ignored":
        raise Ignore
    if how == "replaced":
        raise self.replace(send.si(how, 0))
    raise Reject("on purpose", requeue=not self.request.delivery_info["redelivered"])
