"""Tasks that hand their follow-ups on; part of the project."""

from __future__ import annotations

from typing import Any

from proj import app, note

from cadasta.workertoolbox import extract_followups


@app.task(name="export.work")
def work(x: int) -> int:
    return x * 10


@app.task(name="export.delegate", bind=True)
def delegate(self: Any, x: int) -> str:
    work.apply_async((x,), **extract_followups(self))
    return "delegated"


@app.task(name="export.delegate_badly", bind=True)
def delegate_badly(self: Any) -> None:
    broken.apply_async(**extract_followups(self))


@app.task(name="export.broken")
def broken() -> None:
    raise ValueError("broken")


@app.task(name="export.note_result")
def note_result(value: Any, label: str) -> Any:
    note("followups", label, value)
    return value


@app.task(name="export.note_error")
def note_error(*_: Any) -> None:
    note("followups", "error", "noted")
