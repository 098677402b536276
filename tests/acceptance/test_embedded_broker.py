"""The embedded broker under a plain Celery app: real workers, publishers and deaths."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from kombu import Connection, Consumer, Exchange, Queue

from cadasta.workertoolbox.brokers import transports
from cadasta.workertoolbox.brokers.embedded import transport as embedded
from tests.conftest import StartProcess
from tests.services.process import Process, wait_until

EXCHANGE = Exchange("task_exchange", type="topic")
WORK = Queue("celery", EXCHANGE, routing_key="celery")
MONITOR = Queue("platform.fifo", EXCHANGE, routing_key="#")
ROOT = Path(__file__).parents[2]

APP = """
import json, os, time
from celery import Celery
from kombu import Connection, Exchange, Producer, Queue
from cadasta.workertoolbox.brokers import transports
from cadasta.workertoolbox.brokers.embedded import transport as embedded
from cadasta.workertoolbox.worker.fixes.warm_stop import AcceptBeforeFlush

transports.register()
EXCHANGE = Exchange("task_exchange", type="topic")
WORK = Queue("celery", EXCHANGE, routing_key="celery")
MONITOR = Queue("platform.fifo", EXCHANGE, routing_key="#")
app = Celery("plain_app")
app.conf.update(
    broker_url=os.environ["BROKER"],
    broker_transport_options=json.loads(os.environ["OPTIONS"]),
    broker_connection_retry_on_startup=True,
    task_queues=[WORK],
    task_default_exchange="task_exchange",
    task_default_exchange_type="topic",
    task_default_routing_key="celery",
    task_ignore_result=True,
    task_acks_late="LATE" in os.environ,
)
app.steps["consumer"].add(AcceptBeforeFlush)  # or Celery itself runs tasks twice

def write(*words):
    file = os.open("notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (" ".join(map(str, words)) + "\\n").encode())
    os.close(file)

def send(task, *args):
    task.apply_async(args, exchange=EXCHANGE, routing_key="celery", declare=[WORK, MONITOR])

@app.task
def note(number):
    write(number)

@app.task
def nap(number):
    time.sleep(0.01)
    write(number)

@app.task
def parent(number):
    for child in range(3):
        send(note, number * 3 + child)

@app.task
def hold():
    write("start", time.time())
    while not os.path.exists("release"):
        time.sleep(0.02)
    write("end")
"""


class Site:
    """A folder with the app, its broker and the processes that run there."""

    def __init__(self, folder: Path, start: StartProcess) -> None:
        self.folder = folder
        self.url = embedded.url_for(folder / "broker.sqlite3")
        self._start = start
        self._workers = 0
        self.environment = {"BROKER": self.url, "OPTIONS": "{}", "PYTHONPATH": str(ROOT)}
        (folder / "plain_app.py").write_text(APP)
        transports.register()

    def celery(self, *arguments: str) -> Process:
        command = [sys.executable, "-m", "celery", "-A", "plain_app", *arguments]
        return self._start(*command, env=self.environment, cwd=self.folder, name=arguments[0])

    def worker(self, *arguments: str) -> Process:
        """Start a worker; `ready` waits for it."""
        self._workers += 1
        return self.celery("worker", "-n", f"worker{self._workers}@here", "-l", "info", *arguments)

    def python(self, code: str) -> Process:
        """Start Python with the app's names."""
        code = f"from plain_app import *\n{code}"
        return self._start(sys.executable, "-c", code, env=self.environment, cwd=self.folder)

    def run(self, code: str) -> None:
        process = self.python(code)
        assert process.wait(60) == 0, process.log_text()

    def notes(self) -> list[str]:
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_notes(self, count: int, timeout: float = 60.0) -> None:
        wait_until(lambda: len(self.notes()) >= count, timeout, f"{count} notes")

    def sizes(self) -> tuple[int, int]:
        """Return what waits in the work queue and in the monitor queue."""
        with Connection(self.url) as connection:
            work, monitor = (
                queue(connection.default_channel).queue_declare(passive=True).message_count
                for queue in (WORK, MONITOR)
            )
        return work, monitor


def ready(*workers: Process) -> None:
    for worker in workers:
        worker.wait_for_log(r"ready\.")


def stop(*workers: Process) -> list[int]:
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    return [worker.wait(30) for worker in workers]


@pytest.fixture
def site(tmp_path: Path, run_process: StartProcess) -> Site:
    return Site(tmp_path, run_process)


def drain(url: str, is_done: Callable[[list[int]], bool], queue: Queue = MONITOR) -> list[int]:
    """Consume the first argument of the tasks in a queue until it is done or nothing comes."""
    found: list[int] = []
    with Connection(url) as connection:
        consumer = Consumer(connection.channel(), [queue], prefetch_count=500, accept=["json"])
        consumer.register_callback(lambda body, _: found.append(body[0][0]))
        consumer.register_callback(lambda _, message: message.ack())
        with consumer:
            while not is_done(found):
                connection.drain_events(timeout=20)
    return found


@pytest.mark.slow
def test_9000_messages_from_two_publishers_run_once_each_on_two_workers(site: Site) -> None:
    workers = [site.worker("-c2", "-l", "warning"), site.worker("-c2", "-l", "warning")]
    publishers = [
        site.python(f"for number in range({start}, {start} + 4500): send(note, number)")
        for start in (0, 4500)
    ]
    copies = drain(site.url, lambda found: len(found) >= 9000)
    assert [publisher.wait(30) for publisher in publishers] == [0, 0]
    site.wait_for_notes(9000)
    assert stop(*workers) == [0, 0]
    assert sorted(copies) == sorted(map(int, site.notes())) == list(range(9000))
    assert site.sizes() == (0, 0)
    assert (site.folder / "broker.sqlite3").stat().st_size < 30_000_000


@pytest.mark.parametrize("detect", [False, True])
def test_a_task_whose_worker_was_killed_is_delivered_again(site: Site, detect: bool) -> None:
    options = {"detect_dead_consumers": detect, "visibility_timeout": 3600 if detect else 4}
    site.environment.update(LATE="1", OPTIONS=json.dumps(options))
    first = site.worker("-c1")
    ready(first)
    site.run("send(hold)")
    first.wait_for(lambda: len(site.notes()) == 1, 20, "its start")
    if not detect:
        second = site.worker("-c1")
        ready(second)
        assert len(site.notes()) == 1
        first.kill()
    else:
        first.kill()
        second = site.worker("-c1")
        ready(second)
        up = time.time()
    second.wait_for(lambda: len(site.notes()) == 2, 20, "its start")
    started = [float(note.split()[1]) for note in site.notes()]
    if detect:
        assert started[1] - up < 5
    else:
        assert 3.9 < started[1] - started[0] < 7.5
    (site.folder / "release").touch()
    second.wait_for(lambda: site.notes()[2:] == ["end"], 20, "its end")
    assert stop(second) == [0]
    assert "redelivered" not in second.log_text() and "again: 1" in second.log_text()
    assert (len(site.notes()), *site.sizes()) == (3, 0, 1)


def test_six_processes_start_at_the_same_instant_on_no_file(site: Site) -> None:
    site.run("""
import multiprocessing, sys

def start(round_, barrier, number):
    for each in range(20):
        connection = Connection(f"embedded:///{os.getcwd()}/start{each}/broker.sqlite3")
        barrier.wait()
        with connection:
            Producer(connection).publish(
                [number], exchange=EXCHANGE, routing_key="celery", declare=[WORK, MONITOR]
            )

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(6, timeout=30)
    processes = [context.Process(target=start, args=(0, barrier, n)) for n in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode) for process in processes))
""")
    for each in range(20):
        with Connection(embedded.url_for(site.folder / f"start{each}/broker.sqlite3")) as broker:
            for queue in (WORK, MONITOR):
                bound = queue(broker.default_channel)
                assert sorted(bound.get().payload[0] for _ in range(6)) == list(range(6))


def test_tasks_that_publish_tasks_while_the_pool_forks_anew(site: Site) -> None:
    worker = site.worker("-c4", "--max-tasks-per-child", "20")
    site.run("for number in range(100): send(parent, number)")
    site.wait_for_notes(300)
    assert stop(worker) == [0]
    assert sorted(map(int, site.notes())) == list(range(300))
    assert site.sizes() == (0, 400)


def test_workers_that_are_stopped_and_started_neither_lose_nor_repeat(site: Site) -> None:
    steady, restarted = site.worker("-c2"), site.worker("-c2")
    publisher = site.python("for number in range(1200): send(nap, number)")
    for _ in range(2):
        ready(steady, restarted)
        count = len(site.notes())
        site.wait_for_notes(count + 50)
        assert stop(restarted) == [0]
        restarted = site.worker("-c2")
    assert publisher.wait(30) == 0
    site.wait_for_notes(1200)
    ready(restarted)
    assert stop(steady, restarted) == [0, 0]
    assert [n for n, count in Counter(site.notes()).items() if count != 1] == []
    assert (len(site.notes()), *site.sizes()) == (1200, 0, 1200)


def test_publishers_killed_at_random_leave_both_copies_or_none(site: Site) -> None:
    code = "print('up', flush=True)\nfor n in range({0}, {0} + 100_000): send(note, n); write(n)"
    for turn in range(6):
        pair = [site.python(code.format((2 * turn + n) * 1_000_000)) for n in range(2)]
        for publisher in pair:
            publisher.wait_for_log("up")
        for publisher in pair:
            time.sleep(random.uniform(0.02, 0.15))
            publisher.send_signal(signal.SIGKILL)
            publisher.wait()
    confirmed = set(map(int, site.notes()))
    work, monitor = site.sizes()
    assert work == monitor >= len(confirmed) > 100
    tasks = drain(site.url, lambda found: len(found) == work, WORK)
    copies = drain(site.url, lambda found: len(found) == monitor)
    assert tasks == copies
    assert len(set(tasks)) == len(tasks) and set(tasks) >= confirmed
    assert len(set(tasks) - confirmed) <= 12  # each died at most between a publish and its note


def cpu_seconds(worker: Process) -> float:
    """Return the CPU time of a worker and its pool, from Linux's scheduler."""
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    threads = [
        thread
        for process in (worker.pid, *children)
        for thread in Path(f"/proc/{process}/task").iterdir()
    ]
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def test_remote_control_purge_and_an_idle_worker(site: Site) -> None:
    worker = site.worker("-c1")
    ready(worker)
    ping = site.celery("inspect", "ping", "--timeout", "5", "--destination", "worker1@here")
    assert ping.wait(30) == 0 and "pong" in ping.log_text()
    site.run("send(note, 1)")
    worker.wait_for(lambda: site.notes() == ["1"], 20, "the note")
    if os.path.exists("/proc/self/schedstat"):
        before = cpu_seconds(worker)
        time.sleep(4)
        assert (cpu_seconds(worker) - before) / 4 < 0.005
    assert stop(worker) == [0]
    site.run("for number in range(7): send(note, number)")
    purge = site.celery("purge", "-f")
    assert purge.wait(30) == 0 and "Purged 7 messages" in purge.log_text()
    assert site.sizes() == (0, 8)
    assert os.listdir(site.folder / "broker.sqlite3-consumers") == []


def test_a_worker_does_not_retry_for_ever_on_what_is_no_database(site: Site) -> None:
    (site.folder / "broker.sqlite3").write_text("notes of last summer\n" * 100)
    worker = site.worker("-c1")
    assert worker.wait(30) != 0
    assert "is damaged or no SQLite database" in worker.log_text()
    publisher = site.python("send(note, 1)")
    assert publisher.wait(30) == 1
    assert "BrokerError: The broker's file" in publisher.log_text()
