"""A Celery app whose tasks are limited; each notes when it ran and by which release."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery, chain, chord, group
from celery.exceptions import Ignore, Reject

from cadasta.workertoolbox import Config

FOLDER = Path(os.environ["PROJECT_FOLDER"])
QUEUE = os.environ["PROJECT_QUEUE"]

app = Celery("proj", task_cls="rate_limited_queue:LimitedTask")
local = Config.local(queues=[QUEUE], directory=FOLDER / "broker", DURABLE=True)
if "CELERY_BROKER_URL" in os.environ:
    app.config_from_object(
        Config(queues=[QUEUE], DURABLE=True, result_backend=local.result_backend)
    )
else:
    app.config_from_object(local)


def note(task: Any, *words: object) -> None:
    """Write a line: when, by which release (the store's µs; 0: none), and more words."""
    release = (task.request.headers or {}).get("rate_limited_queue", [0])[-1]
    with open(FOLDER / "notes", "a") as file:
        file.write(" ".join(map(str, (time.time_ns(), release, *words))) + "\n")


@app.task(name=f"{QUEUE}.send", bind=True)
def send(self: Any, customer: str, number: int) -> int:
    """Note it."""
    note(self, customer, number)
    return number


@app.task(name=f"{QUEUE}.slow", bind=True)
def slow(self: Any, customer: str, seconds: float) -> None:
    """Note it, and take so many seconds."""
    note(self, customer, "slow")
    time.sleep(seconds)


@app.task(name=f"{QUEUE}.fail", bind=True)
def fail(self: Any, customer: str) -> None:
    """Note it, and fail."""
    note(self, customer, "fail")
    raise ValueError("on purpose")


@app.task(name=f"{QUEUE}.again", bind=True, max_retries=2)
def again(self: Any, customer: str) -> None:
    """Note it, and succeed at the second retry."""
    note(self, customer, "again")
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)


@app.task(name=f"{QUEUE}.end", bind=True)
def end(self: Any, how: str) -> None:
    """Note it, and end in a way that Celery calls neither a success nor a failure."""
    note(self, how)
    if how == "ignored":
        raise Ignore
    if how == "replaced":
        raise self.replace(send.si(how, 0))
    raise Reject("on purpose", requeue=not self.request.delivery_info["redelivered"])


@app.task(name=f"{QUEUE}.often", bind=True, max_retries=4)
def often(self: Any, customer: str, times: int = 4) -> int:
    """Note it, and succeed at a retry that is due at once."""
    note(self, customer, "often", self.request.retries)
    if self.request.retries < times:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@app.task(name=f"{QUEUE}.named", bind=True, max_retries=3)
def named(self: Any, customer: str) -> Any:
    """Note it, and succeed at a retry that names headers of its own."""
    note(self, customer, "named", self.request.retries)
    if self.request.retries < 3:
        raise self.retry(countdown=0, headers={"number": self.request.retries})
    return self.request.headers["number"]


@app.task(name=f"{QUEUE}.apart", bind=True, max_retries=3)
def apart(self: Any, customer: str) -> int:
    """Note it, and end normally, each time after a retry that raises nothing."""
    note(self, customer, "apart", self.request.retries)
    if self.request.retries < 3:
        self.retry(countdown=0, throw=False)
    return int(self.request.retries)


@app.task(
    name=f"{QUEUE}.auto",
    bind=True,
    autoretry_for=(ValueError,),
    default_retry_delay=0,
    max_retries=2,
)
def auto(self: Any, customer: str) -> str:
    """Note it, and fail twice."""
    note(self, customer, "auto", self.request.retries)
    if self.request.retries < 2:
        raise ValueError("on purpose")
    return "done"


@app.task(name=f"{QUEUE}.turn", bind=True)
def turn(self: Any, customer: str, into: str) -> Any:
    """Note it, and become something else."""
    note(self, customer, "turn", into)
    one = send.si(customer, 1)
    return self.replace(
        {
            "one": one,
            "chain": chain(one, send.si(customer, 2)),
            "group": group(one, send.si(customer, 2)),
            "chord": chord([one, send.si(customer, 2)], send.si(customer, 3)),
        }[into]
    )


@app.task(name=f"{QUEUE}.die", bind=True)
def die(self: Any, customer: str) -> None:
    """Note it, and at first end the process that runs it."""
    note(self, customer, "die")
    if not (FOLDER / f"died-{customer}").exists():
        (FOLDER / f"died-{customer}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
