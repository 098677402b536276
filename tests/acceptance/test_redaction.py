"""A redacted argument is in no table, and in no line that a command prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.deployment import Deployment

SECRET = "t0psecret"  # what must not be found


@pytest.mark.parametrize("deployment", ["embedded"], indirect=True)
def test_a_redacted_argument_is_nowhere(deployment: Deployment, tmp_path: Path) -> None:
    deployment.change(MONITOR_REDACT=["words", "*token*"])
    deployment.start("monitor", "", "-l", "DEBUG")
    deployment.start("worker", "one", "-l", "INFO")
    headers = {"api_token": SECRET, "creator_id": 5}
    first = deployment.app.send_task("export.add", (1, 2), {"my_token": SECRET}, headers=headers)
    deployment.wait_until(lambda: deployment.ledger.get(first.id), "the record")
    task = deployment.ledger.get(first.id)
    assert task is not None
    assert (task.args, task.kwargs) == ([1, 2], {"my_token": "***"})
    assert task.headers == {"api_token": "***", "creator_id": 5}
    listed = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "proj", "tasks", "--json"],
        env={**deployment.environ, "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert first.id in listed.stdout
    assert SECRET not in listed.stdout
    assert SECRET not in deployment.processes["monitor"].log_text()
    deployment.stop_all()
    assert SECRET.encode() not in (tmp_path / "ledger.sqlite3").read_bytes()
