"""The demonstration, on the embedded default and on servers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEMONSTRATION = Path(__file__).parents[2] / "examples" / "quickstart"


@pytest.mark.parametrize("servers", [False, True], ids=["embedded", "rabbitmq and postgresql"])
def test_it_shows_that_nothing_is_missing(
    servers: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = tmp_path / "quickstart"
    shutil.copytree(DEMONSTRATION, folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    command = [sys.executable, str(folder / "run.py")]
    if servers:
        command += ["--broker", request.getfixturevalue("rabbitmq_url")]
        command += ["--database", request.getfixturevalue("postgres_url")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tasks, and not one is missing" in done.stdout
    assert "└── SUCCESS" in done.stdout
    # what it tells to try works on what it has left behind
    if not servers:
        tried = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "demo", "tasks", "--state", "FAILURE"],
            capture_output=True,
            text=True,
            cwd=folder,
        )
        assert tried.stdout.count("orders.charge") == 2, tried.stderr
