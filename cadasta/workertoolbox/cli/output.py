"""What the sub-commands print: tables for people, JSON lines for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime, timezone
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ..checks.findings import Finding
from ..ledger.model import Attempt, NameSummary, Node, Page, Percentiles, Summary, Task, Workflow
from ..messages.decoding import to_json
from ..plain.json_text import harmless

#: Columns of output that goes to a file or a pipe, where nothing may be cut.
PIPE_WIDTH = 1000
#: Columns from which on a table of tasks shows everything.
WIDE = 130
#: Seconds between two looks of ``--watch``.
WATCH_INTERVAL = 1.0
#: Shown in the place of the state of a task that no worker will begin any more.
EXPIRED = "EXPIRED"
STYLES = {
    "SUCCESS": "green",
    "FAILURE": "red",
    "REVOKED": "red",
    "RETRY": "yellow",
    "STARTED": "cyan",
    "PENDING": "dim",
    EXPIRED: "yellow",
}


def console() -> Console:
    """Where people read: as wide as the terminal, or wide enough for any line."""
    standard = Console(highlight=False)
    return standard if standard.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def print_tasks(page: Page, *, as_json: bool) -> None:
    """A page of tasks, and how to get the next one."""
    if as_json:
        for task in page:
            click.echo(task_json(task))
        return
    console().print(tasks_table(page))
    if page.next:
        click.echo(f"More: --after {page.next}")


def watch_tasks(look: Callable[[], Page], *, as_json: bool) -> None:
    """The newest tasks, again each second, until interrupted; with JSON each change a line."""
    try:
        if as_json:
            seen: dict[str, str] = {}
            while True:
                page = look()
                for task in reversed(page.tasks):
                    line = task_json(task)
                    if seen.get(task.task_id) != line:
                        click.echo(line)
                seen = {task.task_id: task_json(task) for task in page}
                time.sleep(WATCH_INTERVAL)
        with Live(tasks_table(look()), console=console(), auto_refresh=False) as live:
            while True:
                live.update(tasks_table(look()), refresh=True)
                time.sleep(WATCH_INTERVAL)
    except KeyboardInterrupt:
        return


def tasks_table(page: Page, width: int | None = None) -> Table:
    """Tasks as a table, one a row; where it is narrow, without what ``task ID`` tells."""
    wide = (width or console().width) >= WIDE
    table = Table(box=None, pad_edge=False)
    columns = ["State", "Name", "Queue", "Published (UTC)", "Waited", "Ran", "Id"]
    for column in columns if wide else ("State", "Name", "UTC", "Id"):
        right = column in {"Waited", "Ran"}
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "Name")
    for task in page:
        state = Text(*_state(task))
        name, task_id, published = Text(task.name), Text(task.task_id), _local(task.published_at)
        if wide:
            times = (published, _seconds(task.waited), _seconds(task.ran))
            table.add_row(state, name, Text(task.queue or ""), *times, task_id)
        else:
            table.add_row(state, name, published[11:19], task_id)
    return table


def print_task(
    task: Task, attempts: tuple[Attempt, ...], workflow: Workflow | None, *, as_json: bool
) -> None:
    """All that is known of a task, its attempts, and the tree of its workflow."""
    if as_json:
        told = json.loads(task_json(task))
        told["attempts"] = [asdict(attempt) for attempt in attempts]
        told["workflow"] = workflow and {
            "state": workflow.state,
            "results": workflow.results,
            "tree": _tree_json(workflow.root),
        }
        click.echo(_strict_json(told))
        return
    out = console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _fields(task).items():
        if name not in {"args_repr", "kwargs_repr", "traceback"} and value not in (None, {}, False):
            shown = _local(value) if isinstance(value, datetime) else value
            table.add_row(Text(name, "bold"), Text(harmless(str(shown))))
    out.print(table)
    if task.args is None and task.args_repr:
        out.print(Text(f"arguments (cut): {task.args_repr} {task.kwargs_repr}"))
    if task.traceback:
        out.print(Text(harmless(task.traceback), "red"))
    if len(attempts) > 1:
        out.print(Text("\nattempts"))
        out.print(attempts_table(attempts))
    if workflow is not None:
        out.print(Text.assemble("\nworkflow ", (workflow.state, STYLES.get(workflow.state, ""))))
        out.print(workflow_tree(workflow, task.task_id))


def print_findings(findings: Iterable[Finding], *, as_json: bool) -> int:
    """Each finding as it comes, with its remedy; return the number of errors."""
    out = console()
    errors = 0
    for finding in findings:
        errors += finding.level == "error"
        if as_json:
            click.echo(json.dumps(asdict(finding)))
            continue
        style = {"ok": "green", "warning": "yellow", "error": "red bold"}[finding.level]
        line = Text.assemble((f"{finding.level:<8}", style), f"{finding.subject}: {finding.text}")
        out.print(line, soft_wrap=True)
        if finding.remedy:
            out.print(Text(f"        {finding.remedy}"), soft_wrap=True)
    return errors


def attempts_table(attempts: tuple[Attempt, ...]) -> Table:
    """A task's attempts as rows of a table, oldest first."""
    table = Table("retries", "state", "started", "ran", "worker", "error", box=None, pad_edge=False)
    for attempt in attempts:
        table.add_row(
            str(attempt.retries),
            Text(attempt.state, STYLES.get(attempt.state, "")),
            _local(attempt.started_at) if attempt.started_at else "",
            _seconds(attempt.runtime),
            Text(attempt.worker or ""),
            Text(attempt.error or ""),
        )
    return table


def workflow_tree(workflow: Workflow, task_id: str | None = None) -> Tree:
    """The tasks of a workflow as a tree; ``task_id`` is marked."""

    def label(node: Node) -> Text:
        task = node.task
        style = "bold" if task.task_id == task_id else ""
        state, state_style = _state(task)
        return Text.assemble(
            (f"{state:<8}", state_style),
            (f" {task.name}", style),
            (f"  {task.task_id}", "dim"),
        )

    tree = Tree(label(workflow.root))
    branches = [tree]
    for depth, node in workflow.root.walk():
        if depth:
            del branches[depth:]
            branches.append(branches[-1].add(label(node)))
    return tree


def print_summary(summary: Summary, *, as_json: bool) -> None:
    """Counts by name and state, with waiting and running times."""
    if as_json:
        for name in summary.names:
            click.echo(json.dumps(_summary_json(name)))
        return
    states = sorted(summary.states)
    table = Table(box=None, pad_edge=False)
    table.add_column("Name")
    for column in [*states, "Waiting p50 / p95 / p99", "Running p50 / p95 / p99"]:
        table.add_column(column, justify="right", no_wrap=True)
    for name in summary.names:
        counts = [str(name.states.get(state, "")) for state in states]
        table.add_row(Text(name.name), *counts, _times(name.waiting), _times(name.running))
    total = [str(summary.states[state]) for state in states]
    table.add_row(Text("all", "bold"), *total, "", "")
    console().print(table)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on the terminal; its function takes how much is done and of how much."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        number = bar.add_task(what, total=None)

        def show(done: int, of: int) -> None:
            bar.update(number, completed=done, total=of)

        yield show


def task_json(task: Task) -> str:
    """A task as one line of JSON; times as ISO 8601 in UTC."""
    told = {"has_expired": task.has_expired, "waited": task.waited, "ran": task.ran}
    return _strict_json({**_fields(task), **told})


def _state(task: Task) -> tuple[str, str]:
    """A task's state for people's eyes, and its style."""
    state = EXPIRED if task.has_expired else task.state
    return state, STYLES.get(state, "")


def _fields(task: Task) -> dict[str, Any]:
    """The fields of a task; ``asdict`` copies each value, and fails with one that is deep."""
    return {field.name: getattr(task, field.name) for field in fields(task)}


def _strict_json(value: Any) -> str:
    """JSON that every program reads: a result that is not a number becomes text."""
    text = json.dumps(value, default=_plain)
    return to_json(json.loads(text)) if "NaN" in text or "Infinity" in text else text


def _tree_json(root: Node) -> list[dict[str, Any]]:
    """The tree as a list in its own order; ``depth`` tells the level (a tree may be deep)."""
    return [
        {"depth": depth, "task_id": n.task.task_id, "name": n.task.name, "state": n.task.state}
        for depth, n in root.walk()
    ]


def _summary_json(name: NameSummary) -> dict[str, Any]:
    return {
        "name": name.name,
        "states": dict(name.states),
        "waiting": asdict(name.waiting),
        "running": asdict(name.running),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else repr(value)


def _local(value: datetime) -> str:
    return value.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f} s" if value < 100 else f"{value:.0f} s"


def _times(value: Percentiles) -> str:
    if value.p50 is None:
        return ""
    return " / ".join(_seconds(part) for part in (value.p50, value.p95, value.p99))
