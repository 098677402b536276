"""The app of the acceptance tests, as a user would write it; its settings come from CELERY_*.

Each run and each publish leaves a line in a file, so that a test can compare the ledger with what
really happened.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery, signals

from cadasta.workertoolbox import Config

app = Celery("proj")
app.config_from_object(Config())


def note(file: str, *words: object) -> None:
    """Append a line; short appends by several processes do not mix."""
    line = " ".join(map(str, words)) + "\n"
    handle = os.open(
        os.path.join(os.environ["NOTES"], file), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644
    )
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


@signals.after_task_publish.connect
def published(headers: dict[str, Any], **_: Any) -> None:
    note("published", headers["id"], headers["task"], headers["retries"])


@signals.task_prerun.connect
def ran(task_id: str, task: Any, **_: Any) -> None:
    note("ran", task_id, task.name, task.request.retries)


@app.task(name="export.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="data.sync.double")
def double(x: int) -> int:
    return 2 * x


@app.task(name="export.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="data.sync.fail")
def fail(words: str) -> None:
    raise ValueError(words)


@app.task(name="export.retry", bind=True, max_retries=3)
def retry(self: Any, times: int, countdown: float = 0.2) -> int:
    if self.request.retries < times:
        raise self.retry(countdown=countdown)
    return int(self.request.retries)


@app.task(name="export.retry_in_vain", bind=True)
def retry_in_vain(self: Any, what: Any = None) -> None:
    raise self.retry(args=(object(),))


@app.task(name="export.spawn")
def spawn(n: int) -> list[str]:
    return [double.delay(i).id for i in range(n)]


@app.task(name="export.replace", bind=True)
def replace(self: Any, x: int) -> Any:
    return self.replace(add.s(x, 1))


@app.task(name="unlisted.name")
def unlisted(x: int) -> int:
    return x


class OnlyHereError(Exception):
    """A class that readers of the result do not have."""


@app.task(name="export.give")
def give(what: str) -> Any:
    """Return, or raise, what is hard to store."""
    if what == "unknown":
        raise OnlyHereError("never heard of")
    return {"nothing json": object(), "five mib": "x" * 5 * 1024 * 1024}[what]


@app.task(name="export.sleep")
def sleep(seconds: float) -> float:
    note("sleeping", seconds)
    time.sleep(seconds)
    return seconds


@app.task(
    name="export.hang", bind=True, acks_late=True, acks_on_failure_or_timeout=False, time_limit=1
)
def hang(self: Any, runs: int) -> int:
    """Hang, but for the last of so many runs."""
    note("hanging", self.request.id)
    with open(os.path.join(os.environ["NOTES"], "hanging")) as notes:
        run = notes.read().count(self.request.id)
    if run < runs:
        time.sleep(60)
    return run
