"""The commands, each as a process of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


class Shell:
    """Runs ``order-tracker`` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(("RTB_", "CELERY"))}
        self.environ.update(RTB_API_HOST="127.0.0.1:0", RTB_WORK_SECONDS="0.01")

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run it to its end; its output, of both kinds."""
        done = subprocess.run(
            [sys.executable, "-m", "order_tracker", *arguments],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stdout
        return done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell in an empty folder."""
    return Shell(tmp_path)


def test_the_demo_brings_100_units_to_their_end(shell: Shell) -> None:
    temporary = shell.folder / "temporary"
    temporary.mkdir()
    shell.environ["TMPDIR"] = str(temporary)
    said = shell.run("demo")
    assert "100 of 100 units done" in said
    assert "At most 50 units were in flight; the limit is 50." in said
    assert "ledger has 500 tasks" in said
    assert list(temporary.iterdir()) == []  # It cleans up.
    assert not (shell.folder / ".order-tracker").exists()


def test_a_demo_that_is_interrupted_has_failed(shell: Shell) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "order_tracker", "demo", "--units", "2000"],
        cwd=shell.folder,
        env={**shell.environ, "TMPDIR": str(shell.folder)},
        stdout=subprocess.PIPE,
    )
    with demo:
        assert demo.stdout is not None
        assert b"are starting" in demo.stdout.readline()
        # Not before: Python swallows a KeyboardInterrupt in the midst of an import.
        assert b"has started the feeding" in demo.stdout.readline()
        demo.send_signal(signal.SIGINT)
        assert b"Logs and files: " in demo.stdout.read()
    assert demo.returncode == 1


def test_init_adds_a_backlog_once(shell: Shell) -> None:
    assert "run order-tracker init" in shell.run("status", code=1)
    assert "run order-tracker init" in shell.run("api", code=1)
    assert "run order-tracker init" in shell.run("inbox", code=1)
    assert "100 units added; 100 in all." in shell.run("init")
    assert (shell.folder / ".order-tracker" / "orders.sqlite3").exists()
    assert "100 units are there already" in shell.run("init", "--units", "5")
    assert "5 units added; 105 in all." in shell.run("init", "--units", "5", "--add")
    other = f"sqlite:///{shell.folder}/other.sqlite3"
    assert "7 units added" in shell.run("init", "--units", "7", "--db", other)
    assert json.loads(shell.run("status", "--json", "--db", other))["total"] == 7
    said = shell.run("status")
    assert "0 of 105 units done" in said
    assert "pending 105" in said


def test_the_limit_is_the_same_for_all_and_stays(shell: Shell) -> None:
    shell.run("init", "--units", "0")
    shell.environ["RTB_BROADCAST_MAX_QUEUE"] = "3"
    shell.run("init")
    del shell.environ["RTB_BROADCAST_MAX_QUEUE"]
    shell.run("init")
    found = json.loads(shell.run("status", "--json"))
    assert (found["limit"], found["going"], found["in_flight"]) == (3, False, 0)


def test_errors_are_one_line(shell: Shell) -> None:
    for variable, value in (
        ("RTB_BROADCAST_MAX_QUEUE", "x"),
        ("RTB_DB_URL", "postgresql://u:geheim@127.0.0.1:1/x"),
        ("RTB_BROKER_BOX", "*"),
    ):
        shell.environ[variable] = value
        said = shell.run("agent" if variable == "RTB_BROKER_BOX" else "init", code=1)
        assert said.startswith("Error: ")
        assert variable in said or repr(value) in said
        assert "geheim" not in said
        assert "Traceback" not in said
        del shell.environ[variable]


def test_a_worker_that_gives_up_tells_its_supervisor(shell: Shell, refusing_url: str) -> None:
    shell.run("init", "--units", "0")
    shell.environ["RTB_BROKER_URL"] = refusing_url
    assert "ACCESS_REFUSED" in shell.run("leader", code=1)


def test_an_address_in_use(shell: Shell, deploy: Any) -> None:
    tracker = deploy()
    tracker.init(0)
    tracker.start_api()
    tracker.wait_for_api()
    shell.run("init", "--units", "0")
    place = f"127.0.0.1:{tracker.settings.api_port}"
    assert f"cannot listen on {place}" in shell.run("api", "--bind", place, code=1)
    said = shell.run("api", "--bind", "nowhere.invalid:80", code=1)
    assert said.startswith("Error: cannot listen on nowhere.invalid:80: the host is unknown.")


def test_status_watch_is_a_live_bar_in_a_terminal(shell: Shell, deploy: Any) -> None:
    tracker = deploy(RTB_ERROR_RATE=0)
    tracker.init(20)
    tracker.start_all(agents=1)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "order_tracker", "status", "--watch"]
    environ = {**tracker.fleet.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, env=environ, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = _read(ours, until=b"stopped")
        tracker.call("GET", "/go/")
        said += _read(ours)
        os.close(ours)
    assert process.returncode == 0
    shares = [int(found) for found in re.findall(rb"(\d+)%.{1,30} units done", said)]
    assert shares[0] == 0
    assert shares[-1] == 100
    assert shares == sorted(shares)
    assert len(set(shares)) > 2
    lines = shell.run("status", "--watch", "--json", "--db", tracker.settings.db_url).splitlines()
    assert json.loads(lines[-1])["done"] == 20


def _read(terminal: int, until: bytes | None = None) -> bytes:
    said = b""
    while until is None or until not in said:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # Linux's way to tell the end.
            break
        if not chunk:
            break
        said += chunk
    return said
