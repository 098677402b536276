"""What the sub-commands take and print, without their processes."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import datetime, timezone
from typing import Any

import click
import pytest
from rich.console import Console

from cadasta.workertoolbox.cli.commands import Duration, Moment
from cadasta.workertoolbox.cli.output import print_task, task_json, tasks_table
from cadasta.workertoolbox.ledger.model import Page, Task

NOW = datetime(2026, 11, 21, tzinfo=timezone.utc)
FIELDS: dict[str, Any] = {
    **dict.fromkeys(field.name for field in fields(Task)),
    **dict.fromkeys(("published_at", "last_published_at", "recorded_at"), NOW),
    **{"task_id": "order[abc][/x]", "name": "export.pdf", "state": "PENDING"},
}
TASK = Task(**FIELDS)


@pytest.mark.parametrize("width", [100, 200])
def test_an_id_is_shown_as_it_is(width: int) -> None:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(tasks_table(Page((TASK,)), width))
    assert "order[abc][/x]" in captured.get()


def test_deep_arguments_are_shown(capfd: pytest.CaptureFixture[str]) -> None:
    deep: Any = 1
    for _ in range(800):
        deep = [deep]
    task = replace(TASK, args=[deep], result=deep)
    assert json.loads(task_json(task))["result"] == deep
    print_task(task, (), None, as_json=True)
    print_task(task, (), None, as_json=False)
    assert "[" * 800 + "1" in capfd.readouterr().out


def test_a_result_that_no_terminal_takes_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    # as of a file whose name is not UTF-8
    task = replace(TASK, state="SUCCESS", result="caf\udce9.txt", traceback="\udce9")
    print_task(task, (), None, as_json=False)
    assert "caf?.txt" in capfd.readouterr().out


def test_json_lines_are_strict() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = task_json(replace(TASK, result=[float("nan"), {"a": float("-inf")}, "NaN", 1.5]))
    assert json.loads(line, parse_constant=refuse)["result"] == ["nan", {"a": "-inf"}, "NaN", 1.5]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Duration(), "99999999999d"),
        (Duration(), "9" * 5000 + "s"),
        (Duration(), "999999d"),
        (Moment(), "9999999d"),
        (Moment(), "0001-01-01T00:00:00+05:00"),
    ],
)
def test_times_out_of_the_calendar_are_explained(kind: Any, value: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(value, None, None)
