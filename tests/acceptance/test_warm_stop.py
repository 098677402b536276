"""A worker that is stopped in an orderly way hands back what it has not begun, and only that."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.acceptance.deployment import Deployment

TASKS = 2000


def wait_for_runs(deployment: Deployment, count: int) -> None:
    deployment.wait_until(lambda: len(deployment.notes("ran")) >= count, f"{count} runs")


@pytest.mark.slow
@pytest.mark.parametrize("deployment", ["rabbitmq", "embedded"], indirect=True)
def test_a_warm_stop_under_load_runs_nothing_twice(deployment: Deployment) -> None:
    """Without `warm_stop`, one or more tasks ran twice in five of six such runs."""
    for _ in range(TASKS):
        deployment.app.send_task("export.sleep", (0,), ignore_result=True)
    for turn in range(3):
        worker = deployment.start("worker", f"turn{turn}")
        wait_for_runs(deployment, len(deployment.notes("ran")) + 200)
        assert worker.stop(timeout=45) == 0
    deployment.start("worker", "last")
    deployment.wait_until(
        lambda: len({line[0] for line in deployment.notes("ran")}) == TASKS, "all runs"
    )
    runs = Counter(line[0] for line in deployment.notes("ran"))
    assert [task for task, count in runs.items() if count > 1] == []


@pytest.mark.parametrize("deployment", ["embedded"], indirect=True)
def test_a_worker_without_processes(deployment: Deployment) -> None:
    """Its pool has nothing to flush, at a stop or after a lost connection."""
    worker = deployment.start("worker", "solo", "-P", "solo")
    deployment.app.send_task("export.unregistered")
    deployment.app.send_task("export.add", (1, 2))
    wait_for_runs(deployment, 1)
    assert worker.stop() == 0
    assert "Error on" not in worker.log_text()
