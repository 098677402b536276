"""How tasks end that ignore their result, or give up, under real workers; and what is left."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.acceptance.deployment import Deployment
from tests.acceptance.test_check import check

ENDINGS = "endings.py"
NOW = timedelta(0)


@pytest.fixture
def shop(deployment: Deployment) -> Deployment:
    """A monitor and a worker that has the code; this process has not."""
    deployment.change(imports=["endings"])
    return deployment


def start(deployment: Deployment) -> None:
    deployment.start("monitor")
    deployment.start("worker", "one")


def counts(deployment: Deployment) -> dict[str, int]:
    """How many rows each table has."""
    tables = "celery_task celery_taskmeta celery_tasksetmeta celery_task_attempt".split()
    with deployment.ledger._engine.connect() as connection:
        return {one: connection.scalar(text(f"SELECT count(*) FROM {one}")) or 0 for one in tables}


@pytest.mark.parametrize("deployment", ["rabbitmq", "embedded"], indirect=True)
def test_each_task_that_has_ended_says_how(shop: Deployment) -> None:
    start(shop)
    published = shop.produce("each", 0, ENDINGS)
    unknown = shop.app.send_task("export.quiet")
    published["SUCCESS sent"] = unknown.id

    def ended() -> bool:
        tasks = [shop.ledger.get(task_id) for task_id in published.values()]
        return all(task is not None and task.is_final for task in tasks)

    shop.wait_until(ended, "all tasks to end")
    found = {task_id: shop.ledger.get(task_id) for task_id in published.values()}
    for name, task_id in published.items():
        task, workflow = found[task_id], shop.ledger.workflow(task_id)
        assert task is not None and workflow is not None
        assert (name, task.state) == (name, name.split()[0])
        assert (name, workflow.state) == (name, task.state)
        if task.ignore_result or name == "SUCCESS sent":
            assert task.result is None or task.state != "SUCCESS"
            assert "expired" in name or task.ran is not None
    quiet = found[published["FAILURE quiet"]]
    assert quiet is not None and quiet.result == "ValueError: no such file"
    assert "endings.py" in (quiet.traceback or "")
    assert unknown.get(timeout=10) is None
    shop.wait_until(lambda: not {"PENDING"} & shop.ledger.summary().states.keys(), "the rest")
    assert list(shop.ledger.unfinished(NOW)) == []
    with shop.ledger._engine.connect() as connection:
        stored = connection.execute(text("SELECT result FROM celery_taskmeta")).scalars()
        assert not any(b"nobody shall read this" in bytes(one or b"") for one in stored)
    shop.stop_all()


@pytest.mark.parametrize("deployment", ["embedded"], indirect=True)
def test_nothing_is_recorded_and_nothing_waits_where_that_is_off(shop: Deployment) -> None:
    shop.change(RECORD_IGNORED=False)
    start(shop)
    quiet = shop.app.send_task("export.quiet"), shop.app.send_task("export.quiet_failure")
    told = shop.app.send_task("export.add", (1, 1))
    assert told.get(timeout=30) == 2
    shop.wait_until(lambda: shop.count() == 3, "three records")
    assert {task.state for task in shop.ledger.find(name="export.quiet*")} == {"IGNORED"}
    assert {task.task_id for task in shop.ledger.find(state="IGNORED")} == {one.id for one in quiet}
    listed = [sys.executable, "-m", "celery", "-A", "proj", "tasks", "--state", "ignored", "--json"]
    environ = {**os.environ, **shop.environ}
    shown = subprocess.check_output(listed, env=environ, cwd=shop.folder, text=True, timeout=60)
    assert {json.loads(line)["task_id"] for line in shown.splitlines()} == {one.id for one in quiet}
    assert not shop.ledger.find(state="PENDING").tasks
    assert shop.ledger.summary().states == {"IGNORED": 2, "SUCCESS": 1}
    assert not shop.ledger.unfinished(NOW).tasks
    code, found = check(shop)
    assert found["ignored results"]["level"] == "warning"
    assert found["ignored results"]["text"].startswith("2 of the newest")
    assert "RECORD_IGNORED" in found["ignored results"]["remedy"]
    shop.stop_all()
    assert shop.ledger.prune(NOW) >= 3
    assert counts(shop)["celery_task"] == 0


@pytest.mark.parametrize("deployment", ["rabbitmq", "embedded"], indirect=True)
def test_prune_leaves_nothing_of_chains_that_failed(shop: Deployment) -> None:
    start(shop)
    shop.produce("chains", 20, ENDINGS)
    shop.wait_until(lambda: counts(shop)["celery_taskmeta"] == 20 * (3 + 2), "all results")
    shop.wait_until(lambda: shop.count() == 20 * (1 + 2), "all records")
    shop.stop_all()
    assert counts(shop)["celery_tasksetmeta"] == 20
    assert shop.ledger.prune(NOW, batch=7) == 20 * (1 + 2)
    assert set(counts(shop).values()) == {0}


@pytest.mark.parametrize("deployment", ["embedded"], indirect=True)
def test_a_worker_s_processes_share_the_log_files(shop: Deployment, tmp_path: Path) -> None:
    shop.change(SETUP_FILE_LOGGING=str(tmp_path / "logs"))
    for name in ("one", "two"):
        shop.start("worker", name, "-c", "4", "-l", "WARNING", ready=r"\[queues\]")
    for number in range(200):
        shop.app.send_task("export.quiet", (number,))
    log = tmp_path / "logs" / "app.info.log"

    def written() -> list[tuple[str, str]]:
        return re.findall(r" endings: (plain|of a task) \((\d+),\)", log.read_text())

    shop.wait_until(lambda: len(written()) >= 400, "all lines")
    expected = [(kind, str(number)) for kind in ("plain", "of a task") for number in range(200)]
    assert sorted(written()) == sorted(expected)
    shop.stop_all()
    for name in ("one", "two"):  # which were asked to be silent
        assert "endings" not in shop.processes[f"worker{name}"].log_text()
