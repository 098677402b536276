"""The app of the acceptance tests, as a user would write it; its settings come from CELERY_*.

Each run and each publish leaves a line in a file, so that a test can compare the ledger with what
really happened.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery, chain, group, signals

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


@app.task(name="export.meet")
def meet(number: int, patience: float = 30) -> None:
    """End when so many run at once."""
    note("met", 1)
    give_up = time.monotonic() + patience
    while True:
        with open(os.path.join(os.environ["NOTES"], "met")) as met:
            if len(met.readlines()) >= number:
                return
        if time.monotonic() > give_up:
            raise TimeoutError(f"no {number} tasks at once")
        time.sleep(0.05)


@app.task(name="data.sync.fail")
def fail(words: str) -> None:
    raise ValueError(words)


@app.task(name="export.retry", bind=True, max_retries=3)
def retry(self: Any, times: int, countdown: float = 0.2) -> int:
    if self.request.retries < times:
        raise self.retry(countdown=countdown)
    return int(self.request.retries)


@app.task(name="export.sleep_and_retry", bind=True)
def sleep_and_retry(self: Any, seconds: float) -> int:
    """Retry once, so many seconds after it began."""
    if not self.request.retries:
        note("sleeping", seconds)
        time.sleep(seconds)
        raise self.retry(countdown=0)
    return int(self.request.retries)


@app.task(name="export.retry_in_vain", bind=True)
def retry_in_vain(self: Any, what: Any = None) -> None:
    raise self.retry(args=(object(),))


@app.task(name="export.retry_large", bind=True, max_retries=None)
def retry_large(self: Any, args: int = 0, headers: int = 0) -> str:
    """Retry with so many bytes of arguments and headers."""
    if self.request.retries:
        return "retried"
    raise self.retry(countdown=0, args=("x" * args,), headers={"big": "x" * headers})


@app.task(name="export.spawn")
def spawn(n: int) -> list[str]:
    return [double.delay(i).id for i in range(n)]


@app.task(name="export.replace", bind=True)
def replace(self: Any, x: int) -> Any:
    return self.replace(add.s(x, 1))


@app.task(name="export.replace_by", bind=True)
def replace_by(self: Any, what: str) -> Any:
    """Put one of these signatures in this task's place."""
    signatures = {
        "task": lambda: add.s(1, 1),
        "chain": lambda: chain(add.s(1, 1), add.s(2)),
        "group": lambda: group(add.s(1, 1), add.s(2, 2)),
        "retry": lambda: retry.s(1),
    }
    return self.replace(signatures[what]())


@app.task(name="export.autoretry", bind=True, autoretry_for=(ValueError,), default_retry_delay=0)
def autoretry(self: Any) -> int:
    if self.request.retries < 2:
        raise ValueError("not yet")
    return 1


@app.task(name="export.forward", bind=True)
def forward(self: Any) -> str:
    """Give another task the headers of this one."""
    return str(add.apply_async((5, 5), headers=self.request.headers).id)


@app.task(name="export.headers", bind=True)
def headers_of(self: Any) -> Any:
    """Return what the worker sees of headers and stamps."""
    names = ("tenant", "when", "many", "deep")
    stamps = {name: sorted(value) for name, value in (self.request.stamps or {}).items()}
    return {"headers": {name: self.request.headers[name] for name in names}, "stamps": stamps}


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
