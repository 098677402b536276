"""The embedded broker beside kombu's other serverless transports: `python -m benchmarks.embedded`.

Published messages/s, each with its two copies (work queue and monitor queue), for a fixed time and
from one process, while two `celery worker` processes and a kombu consumer of the monitor queue
consume; then what of it arrived. And the CPU that an idle worker takes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from celery import Celery
from celery.signals import worker_ready
from kombu import Consumer, Exchange, Queue

from benchmarks.common import Figure
from cadasta.workertoolbox.brokers import transports
from cadasta.workertoolbox.brokers.embedded import transport as embedded

EXCHANGE = Exchange("task_exchange", type="topic")
WORK = Queue("celery", EXCHANGE, routing_key="celery")
MONITOR = Queue("platform.fifo", EXCHANGE, routing_key="#")
FOLDER = Path(os.environ.get("BENCHMARK_FOLDER", "/nonexistent"))

transports.register()
app = Celery("benchmarks.embedded")
app.conf.update(
    broker_url=os.environ.get("BENCHMARK_BROKER", "memory://"),
    broker_transport_options=json.loads(os.environ.get("BENCHMARK_OPTIONS", "{}")),
    broker_connection_retry_on_startup=True,
    task_queues=[WORK],
    task_default_exchange="task_exchange",
    task_default_exchange_type="topic",
    task_default_routing_key="celery",
    task_ignore_result=True,
)


def broker_of(transport: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the broker URL and the transport options of a rival, kept in `folder`."""
    if transport == "embedded":
        return embedded.url_for(folder / "broker.sqlite3"), {}
    if transport == "sqla":
        return f"sqla+sqlite:///{folder}/broker.sqlite3", {}
    for name in ("messages", "control"):
        (folder / name).mkdir(exist_ok=True)
    messages = f"{folder}/messages"
    options = {"data_folder_in": messages, "data_folder_out": messages}
    return "filesystem://", {**options, "control_folder": f"{folder}/control"}


def note(name: str, text: str) -> None:
    """Append a line to a file of the run."""
    with (FOLDER / name).open("ab", buffering=0) as file:
        file.write(text.encode() + b"\n")


@app.task(name="celery.bench")
def handle(number: int) -> None:
    """Count a task."""
    note("handled", str(number))


@worker_ready.connect
def on_ready(**_: Any) -> None:
    """Tell that this worker consumes."""
    if FOLDER.exists():
        note("ready", "worker")


def on_copy(_: object, message: Any) -> None:
    """Count a copy in the monitor queue."""
    note("copied", "1")
    message.ack()


def consume() -> None:
    """Consume the monitor queue until killed."""
    with app.connection_for_read() as connection:
        consumer = Consumer(connection.channel(), [MONITOR], accept=["json"], prefetch_count=500)
        consumer.register_callback(on_copy)
        with consumer:
            note("ready", "consumer")
            while True:
                try:
                    connection.drain_events(timeout=1)
                except TimeoutError:
                    pass


def publish(seconds: float) -> None:
    """Publish for so long; print how many."""
    start, number = time.monotonic(), 0
    end = start + seconds
    with app.producer_pool.acquire(block=True) as producer:
        while time.monotonic() < end:
            route = {"exchange": EXCHANGE, "routing_key": "celery", "declare": [WORK, MONITOR]}
            handle.apply_async((number,), producer=producer, **route)
            number += 1
    print(json.dumps([number, start, time.monotonic()]))


@contextmanager
def processes(transport: str, consumers: int = 1, workers: int = 2) -> Iterator[tuple[Any, ...]]:
    """Run the consuming processes in a folder of their own, until they are all ready."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url, transport_options = broker_of(transport, folder)
        here = {"BENCHMARK_BROKER": url, "BENCHMARK_OPTIONS": json.dumps(transport_options)}
        environment = {**os.environ, **here, "BENCHMARK_FOLDER": name}
        python = [sys.executable, "-m"]
        worker = [*python, "celery", "-A", "benchmarks.embedded", "worker", "-c1", "-lerror", "-n"]
        commands = [[*worker, f"w{number}@%h"] for number in range(workers)]
        commands += [[*python, "benchmarks.embedded", "--consume"]] * consumers
        running = []
        with (folder / "output").open("wb") as output:
            for command in commands:
                process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
                running.append(process)
        try:
            if not wait_for(lambda: lines(folder / "ready") >= len(commands), 60):
                raise SystemExit((folder / "output").read_text())
            yield folder, environment, running
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM if process.poll() is None else 0)
            for process in running:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def lines(path: Path) -> int:
    """Return the number of lines, 0 where there is no file."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition holds; False if the time is over first."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def throughput(transport: str, seconds: float) -> dict[str, float]:
    """Return figures of one run."""
    with processes(transport) as (folder, environment, _):
        command = [sys.executable, "-m", "benchmarks.embedded", "--publish", str(seconds)]
        ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        published, start, end = json.loads(ran.stdout)
        handled, copied = folder / "handled", folder / "copied"
        wait_for(lambda: min(lines(handled), lines(copied)) >= published, 6 * seconds)
        drained = time.monotonic() - start
        return {
            "published/s": published / (end - start),
            "handled/s": lines(handled) / drained,
            "copies/s": lines(copied) / drained,
            "missing": max(0, 2 * published - lines(handled) - lines(copied)),
        }


def idle_cpu(transport: str, seconds: float = 10.0) -> float | None:
    """Return the CPU that an idle worker with its pool takes, in percent; None if not on Linux."""
    if not Path("/proc/self/schedstat").exists():
        return None
    with processes(transport, consumers=0, workers=1) as (_, _, (worker,)):
        time.sleep(3)  # what the start left to do

        def used() -> int:
            children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
            threads = [
                thread
                for process in (str(worker.pid), *children)
                for thread in Path(f"/proc/{process}/task").iterdir()
            ]
            return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)

        before = used()
        time.sleep(seconds)
        return (used() - before) / seconds / 1e7


def figures(rounds: int, seconds: float = 3.0) -> list[Figure]:
    """Published messages a second beside kombu's own transports, and an idle worker's CPU."""
    found = []
    for rival in ("sqla", "filesystem"):
        runs = [
            (throughput("embedded", seconds), throughput(rival, seconds)) for _ in range(rounds)
        ]
        pairs = [(ours["published/s"], theirs["published/s"]) for ours, theirs in runs]
        lost = sum(theirs["missing"] for _, theirs in runs)
        found.append(
            Figure(
                "embedded broker, both copies, 2 workers and a monitor",
                "msg/s",
                median(ours for ours, _ in pairs),
                median(theirs for _, theirs in pairs),
                f"kombu's {rival} transport" + (f", which lost {lost:,.0f}" if lost else ""),
                median(ours / theirs for ours, theirs in pairs),
                rounds,
            )
        )
        assert not any(ours["missing"] for ours, _ in runs), "the embedded broker lost messages"
    ours, theirs = idle_cpu("embedded"), idle_cpu("sqla")
    if ours is not None and theirs is not None:
        what = "CPU of an idle worker on the embedded broker"
        found.append(Figure(what, "%", ours, theirs, "kombu's sqla transport", ours / theirs, 1))
    return found


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedded")
    parser.add_argument("--consume", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--publish", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=3.0, help="of publishing a run (3)")
    parser.add_argument("-n", type=int, default=5, help="runs, of which the median is shown (5)")
    parser.add_argument("--transports", default="embedded,sqla,filesystem")
    options = parser.parse_args()
    if options.consume:
        return consume()
    if options.publish:
        return publish(options.publish)
    for transport in options.transports.split(","):
        runs = [throughput(transport, options.seconds) for _ in range(options.n)]
        figures = "  ".join(f"{key} {median(run[key] for run in runs):,.0f}" for key in runs[0])
        spread = sorted(round(run["published/s"]) for run in runs)
        print(f"{transport:12}{figures}  (published/s {spread[0]} to {spread[-1]})", flush=True)
        idle = idle_cpu(transport)
        print(f"{transport:12}idle CPU of a worker {'-' if idle is None else f'{idle:.2f} %'}")


if __name__ == "__main__":
    main()
