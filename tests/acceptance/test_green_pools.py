"""Workers whose tasks are green threads, of gevent.

Eventlet, which its makers have given up, is not installed here: where it is, Sentry loads it, and
it warns of each fork of the process.
"""

from __future__ import annotations

import pytest

from tests.acceptance.deployment import Deployment

TASKS = 20


@pytest.mark.parametrize("deployment", ["rabbitmq", "redis"], indirect=True)
def test_tasks_run_at_once(deployment: Deployment) -> None:
    worker = deployment.start("worker", "green", "-P", "gevent", "-c", str(TASKS))
    sent = [deployment.app.send_task("export.meet", (TASKS,)) for _ in range(TASKS)]
    for one in sent:
        one.get(timeout=60)
    assert "not patched" not in worker.log_text()
    assert worker.stop() == 0


@pytest.mark.parametrize("deployment", ["embedded"], indirect=True)
def test_a_pool_that_is_not_patched_is_told(deployment: Deployment) -> None:
    """As by a setting: the command line tells Celery alone that it has to patch."""
    deployment.environ["CELERY_WORKER_POOL"] = "gevent"
    worker = deployment.start("worker", "green")
    worker.wait_for_log("one at a time, or not at all, .* worker -P gevent`")
