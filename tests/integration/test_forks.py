"""A process that has published, and then forks, as servers that load their application first do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from cadasta.workertoolbox import Config

ROOT = Path(__file__).parents[2]

#: Publishes, forks as gunicorn --preload does, and publishes in the parent and all children. Its
#: threads publish meanwhile, also at the very moments of the forks.
SERVER = """
import json, os, sys, threading, time
from celery import Celery
from cadasta.workertoolbox import Config

settings, children, each, threads = json.loads(sys.argv[1])
app = Celery("server")
app.config_from_object(Config(queues=["export"], **settings))

def publish(times):
    slowest, failed = 0.0, []
    for number in range(times):
        started = time.monotonic()
        try:
            told(app.send_task("export.add", (1, number)).id)
        except Exception as error:
            failed.append(repr(error))
        slowest = max(slowest, time.monotonic() - started)
    return slowest, failed

def told(task_id):
    os.write(out, (task_id + "\\n").encode())

out = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
publish(1)
stop = threading.Event()
def go_on():
    while not stop.is_set():
        publish(1)
running = [threading.Thread(target=go_on) for _ in range(threads)]
for thread in running:
    thread.start()
pids, pipes = [], []
for _ in range(children):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, json.dumps(publish(each)).encode())
        os._exit(0)
    os.close(write)
    pids.append(pid)
    pipes.append(read)
found = [publish(1)]
for pid, read in zip(pids, pipes):
    with open(read) as pipe:
        found.append(json.loads(pipe.read()))
    os.waitpid(pid, 0)
found.append(publish(1))
stop.set()
for thread in running:
    thread.join()
print(json.dumps(found))
"""


def run(folder: Path, settings: dict[str, Any], threads: int = 0) -> list[str]:
    """Run such a server; the ids of what it published."""
    told = folder / "published"
    done = subprocess.run(
        [sys.executable, "-c", SERVER, json.dumps([settings, 4, 50, threads]), str(told)],
        capture_output=True,
        text=True,
        timeout=90,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    for slowest, failed in json.loads(done.stdout):
        assert not failed
        assert slowest < 10  # no wait for an answer that another process has read
    return told.read_text().split()


def settings_for(broker: str, folder: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    settings: dict[str, Any] = {"result_backend": f"toolbox+sqlite:///{folder}/ledger.sqlite3"}
    if broker == "embedded":
        settings["broker_url"] = f"embedded:///{folder}/broker.sqlite3"
    elif broker == "redis":
        prefix = request.getfixturevalue("redis_prefix")
        settings["broker_url"] = request.getfixturevalue("redis_url")
        settings["broker_transport_options"] = {"global_keyprefix": prefix}
    else:
        settings["broker_url"] = request.getfixturevalue("rabbitmq_url")
    return settings


def waiting(settings: dict[str, Any]) -> list[str]:
    """The ids of all messages of the work queue."""
    app = Celery("reader", set_as_current=False)
    app.config_from_object(Config(queues=["export"], **settings))
    found = []
    with app.connection_for_read() as connection:
        queue = app.conf.task_routes.queues["export"](connection.default_channel)
        while (message := queue.get(no_ack=True)) is not None:
            found.append(message.headers["id"])
    app.close()
    return found


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("broker", ["rabbitmq", "redis", "embedded"])
def test_a_server_that_forks_publishes_all(
    broker: str, threads: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = settings_for(broker, tmp_path, request)
    published = run(tmp_path, settings, threads)
    assert len(published) >= 203
    assert sorted(waiting(settings)) == sorted(published)


#: Stores and reads results, reads the ledger, and forks meanwhile; so do all children. Where a
#: process waits for a lock that nobody holds, it shows the stacks of its threads and ends.
READER = """
import faulthandler, json, os, sys, threading, time
from celery import Celery
from cadasta.workertoolbox import Config, Ledger

settings, children, each, threads, is_warm = json.loads(sys.argv[1])

def make_app():
    app = Celery("server")
    # A cache of one: what is read is in it, and its lock is taken, and yet it is read each time.
    app.config_from_object(Config(queues=["export"], result_cache_max=1, **settings))
    return app

writer = make_app()
for task_id in ("one", "two"):
    writer.backend.store_result(task_id, 42, "SUCCESS")
app = make_app()
ledger = Ledger.from_app(app)

def read(times):
    slowest, failed = 0.0, []
    for _ in range(times):
        started = time.monotonic()
        try:
            for task_id in ("one", "two"):
                assert app.AsyncResult(task_id).get(timeout=5) == 42
            app.backend.store_result(f"of {os.getpid()}", 42, "SUCCESS")
            assert ledger.get("unknown") is None
        except Exception as error:
            failed.append(repr(error))
        slowest = max(slowest, time.monotonic() - started)
    return slowest, failed

if is_warm:
    read(1)
stop = threading.Event()
def go_on():
    while not stop.is_set():
        found.append(read(1))
found = []
running = [threading.Thread(target=go_on) for _ in range(threads)]
for thread in running:
    thread.start()
pids, pipes = [], []
for number in range(children):
    time.sleep(0.003 * number)  # at other points of what the threads do
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        faulthandler.dump_traceback_later(20, exit=True)
        os.write(write_end, json.dumps(read(each)).encode())
        os._exit(0)
    os.close(write_end)
    pids.append(pid)
    pipes.append(read_end)
faulthandler.dump_traceback_later(60, exit=True)  # not before the forks, after which it would hang
found.append(read(1))
for pid, read_end in zip(pids, pipes):
    with open(read_end) as pipe:
        told = pipe.read()
        found.append(json.loads(told) if told else (0, ["a child hung: see its stacks"]))
    os.waitpid(pid, 0)
found.append(read(1))
stop.set()
for thread in running:
    thread.join()
ledger.close()
print(json.dumps(found))
"""


@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("database", ["postgres", "mariadb", "sqlite"])
def test_a_server_that_forks_reads_all(
    database: str, threads: int, is_warm: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    if database != "sqlite":
        url = request.getfixturevalue(f"{database}_url")
    settings = {
        "broker_url": f"embedded:///{tmp_path}/broker.sqlite3",
        "result_backend": f"toolbox+{url}",
    }
    done = subprocess.run(
        [sys.executable, "-c", READER, json.dumps([settings, 8, 20, threads, is_warm])],
        capture_output=True,
        text=True,
        timeout=90,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    for slowest, failed in json.loads(done.stdout):
        assert not failed, done.stderr
        assert slowest < 10
