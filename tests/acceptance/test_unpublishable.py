"""A message that its broker refuses is an error, once; no task runs again and again for it."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.deployment import Deployment
from tests.conftest import StartProcess
from tests.services import free_port

#: What each broker does not take, in bytes, and what the error says.
REFUSED = [
    ("rabbitmq", {"headers": 200_000}, "FrameError.*(200,.* bytes.*131,072)"),
    # RabbitMQ cuts the connection long before this is written.
    ("rabbitmq", {"headers": 20_000_000}, "FrameError.*(20,000,.* bytes.*131,072)"),
    ("sqs", {"args": 2_000_000}, "InvalidParameterValue|too long|Message must be shorter"),
]


def runs_once(deployment: Deployment, sizes: dict[str, int]) -> str:
    """Run a task whose retry cannot be published; what it failed with."""
    deployment.change(DURABLE=True)
    deployment.start("worker", "one", "-c", "1")
    task = deployment.app.send_task("export.retry_large", kwargs=sizes)
    task.get(timeout=60, propagate=False)
    after = deployment.app.send_task("export.add", (1, 2))
    assert after.get(timeout=60) == 3  # the worker goes on
    runs = [line for line in deployment.notes("ran") if line[0] == task.id]
    assert len(runs) == 1
    assert task.state == "FAILURE"
    return f"{type(task.result).__name__}: {task.result}"


@pytest.mark.parametrize(("deployment", "sizes", "error"), REFUSED, indirect=["deployment"])
def test_a_retry_at_fault_fails_once(
    deployment: Deployment, sizes: dict[str, int], error: str
) -> None:
    assert re.search(error, runs_once(deployment, sizes))


def test_a_retry_that_redis_refuses_fails_once(
    tmp_path: Path, postgres_url: str, run_process: StartProcess
) -> None:
    port = free_port()
    options = ("--save", "", "--proto-max-bulk-len", "1048576", "--bind", "127.0.0.1")
    server = run_process("redis-server", "--port", str(port), *options)
    server.wait_for_log("Ready to accept connections")
    settings = {
        "broker_url": f"redis://127.0.0.1:{port}/0",
        "result_backend": f"toolbox+{postgres_url}",
    }
    with closing(Deployment(tmp_path, settings)) as deployment:
        failure = runs_once(deployment, {"args": 4_000_000})
    assert re.search(r"a message of 5,\d+,\d+ bytes; Redis takes 1,048,576", failure)
