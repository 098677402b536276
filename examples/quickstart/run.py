"""Runs a worker and a monitor, schedules a workflow, kills the monitor, and shows the ledger."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

HERE = Path(__file__).resolve().parent
FOLDER = HERE / ".workertoolbox"
#: Seconds after which the demonstration has failed.
PATIENCE = 60
console = Console(highlight=False)


def main() -> int:
    """Run the demonstration; 0 if every task that was scheduled is in the ledger."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", help="broker URL, such as amqp://guest:guest@localhost//")
    parser.add_argument("--database", help="SQLAlchemy URL, such as postgresql://me@localhost/db")
    options = parser.parse_args()
    if bool(options.broker) != bool(options.database):
        parser.error("give --broker and --database together, or neither")
    if options.broker:
        os.environ["CELERY_BROKER_URL"] = options.broker
        os.environ["CELERY_RESULT_BACKEND"] = f"toolbox+{options.database.removeprefix('toolbox+')}"
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    running: list[subprocess.Popen[bytes]] = []
    try:
        return demonstrate(running, options)
    except Exception as error:  # each server's client has errors of its own
        if not options.broker:
            raise
        from cadasta.workertoolbox.plain.urls import mask_url

        console.print(f"{type(error).__name__}: {mask_url(str(error))}", markup=False)
        console.print(
            f"Do broker and database run, and are the URLs right? The logs are in {FOLDER}."
        )
        return 1
    finally:
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(30)


def start(running: list[subprocess.Popen[bytes]], *command: str) -> subprocess.Popen[bytes]:
    """Start ``celery -A demo ...``, its log in the folder."""
    with open(FOLDER / f"{command[0]}.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "demo", *command],
            cwd=HERE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    running.append(process)
    return process


def demonstrate(running: list[subprocess.Popen[bytes]], options: argparse.Namespace) -> int:
    sys.path.insert(0, str(HERE))
    from cadasta.workertoolbox import Ledger

    console.print("[bold]1.[/] A worker and a monitor start, each a process of its own:")
    console.print("   celery -A demo worker        celery -A demo monitor")
    monitor = start(running, "monitor")
    start(running, "worker", "-l", "INFO", "-c", "2")

    import demo

    ledger = Ledger.from_app(demo.app)
    ledger.upgrade()
    began = datetime.now(timezone.utc)  # a database of yours may have tasks of others
    console.print("[bold]2.[/] A chain, a group, a chord, a failure, a retry, a task of tasks.")
    first = schedule(demo)
    watch(ledger, began, lambda tasks: len(tasks) >= 5)

    console.print("\n[bold]3.[/] The monitor is killed (SIGKILL). The work goes on:")
    monitor.kill()
    monitor.wait()
    second = schedule(demo)
    while demo.app.AsyncResult(second["chord"]).state != "SUCCESS":
        time.sleep(0.1)
    wanted = first["ids"] | second["ids"]
    missing = wanted - {task.task_id for task in ledger.find(since=began, limit=1000)}
    console.print(f"   {len(missing)} tasks have run that the ledger does not know. Their copies")
    console.print("   wait in the queue platform.fifo. The monitor starts again:")
    start(running, "monitor")
    complete = watch(ledger, began, lambda tasks: wanted <= tasks.keys() and all_done(tasks))
    if not complete:
        console.print(f"[red]Not complete after {PATIENCE} seconds: see the logs in {FOLDER}[/]")
        return 1
    known = {task.task_id for task in ledger.find(since=began, limit=1000)}
    console.print(f"\n[bold green]   {len(known)} tasks, and not one is missing.[/]\n")

    from cadasta.workertoolbox.cli.output import workflow_tree
    from cadasta.workertoolbox.plain.urls import mask_url

    workflow = ledger.workflow(second["chain_root"])
    assert workflow is not None
    console.print(f"[bold]4.[/] The workflow of one order ({workflow.state}):")
    console.print(workflow_tree(workflow))
    console.print("\nTry it on what is there now (the folder is kept):")
    celery = os.path.relpath(Path(sys.executable).parent / "celery")
    where = os.path.relpath(HERE)
    prefix = f"  {celery} --workdir {where} -A demo"
    if options.broker:
        for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
            url = shlex.quote(mask_url(os.environ[name]))
            console.print(f"  export {name}={url}", soft_wrap=True)
    console.print(f"{prefix} tasks --state FAILURE", soft_wrap=True)
    console.print(f"{prefix} task {second['chain_root']}", soft_wrap=True)
    console.print(f"{prefix} ledger summary", soft_wrap=True)
    return 0


def schedule(demo: Any) -> dict[str, Any]:
    """Schedule one of each; the ids of all tasks that this process has scheduled."""
    from celery import chain, chord, group

    ordered = chain(demo.check.s(1), demo.pack.s(), demo.confirm.s()).apply_async()
    grouped = group(demo.check.s(number) for number in range(4)).apply_async()
    counted = chord([demo.pack.s(number) for number in range(3)], demo.count.s()).apply_async()
    single = [demo.charge.delay("1234"), demo.newsletter.delay(), demo.import_all.delay(3)]
    results = [ordered, ordered.parent, ordered.parent.parent, *grouped, counted, *counted.parent]
    return {
        "ids": {result.id for result in [*results, *single]},
        "chain_root": ordered.parent.parent.id,
        "chord": counted.id,
    }


def all_done(tasks: dict[str, Any]) -> bool:
    return all(task.is_final or task.name == "celery.chord_unlock" for task in tasks.values())


def watch(ledger: Any, began: datetime, is_enough: Any) -> bool:
    """Show the ledger as it fills, until it is enough."""
    from cadasta.workertoolbox.cli.output import tasks_table

    deadline = time.monotonic() + PATIENCE
    with Live(Table(box=None), console=console, auto_refresh=False) as live:
        while time.monotonic() < deadline:
            page = ledger.find(since=began, limit=1000)
            live.update(
                tasks_table(ledger.find(since=began, limit=15), console.width), refresh=True
            )
            if is_enough({task.task_id: task for task in page}):
                return True
            time.sleep(0.2)
    return False


if __name__ == "__main__":
    sys.exit(main())
