"""The main job on each broker: every task that any process schedules is in the ledger."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.acceptance.deployment import Deployment

#: TEST_FULL=1: twice as many.
TASKS = 500 if os.environ.get("TEST_FULL") else 250
PLAIN = ("countdown", "queue", "send_task", "unlisted", "expires")


def test_each_task_runs_once_and_is_recorded_once(deployment: Deployment) -> None:
    deployment.start("monitor")
    deployment.start("worker", "one")
    deployment.start("worker", "two")
    made = deployment.produce("everything", TASKS)
    deployment.wait_for_quiet(made["chord"], made["chain"])

    published = deployment.notes("published")
    assert len({line[0] for line in published}) >= TASKS + 25
    # Each publication ran once: the retried task three times, all others once.
    assert Counter(map(tuple, deployment.notes("ran"))) == Counter(map(tuple, published))

    ledger = deployment.ledger
    recorded = {task.task_id: task for task in deployment.all_tasks()}
    assert set(recorded) == {line[0] for line in published}
    for task_id, task in recorded.items():
        result = deployment.app.AsyncResult(task_id)
        if task.name == "celery.chord_unlock":
            continue  # Celery stores no result of it
        assert task.state == result.state, task
        if task.state == "SUCCESS":
            assert task.result == result.result

    assert {recorded[made[kind]].state for kind in PLAIN} == {"SUCCESS"}
    assert recorded[made["fail"]].result == "ValueError: as it should"
    assert recorded[made["retry"]].retries == 2
    assert recorded[made["countdown"]].headers["creator_id"] == 5
    assert recorded[made["countdown"]].eta is not None
    assert recorded[made["queue"]].queue == "export"
    assert recorded[made["unlisted"]].queue == "celery"
    assert recorded[made["expires"]].expires is not None
    assert recorded[made["send_task"]].properties == {"is_result": True}
    assert recorded[made["replace"]].name == "export.add"
    assert recorded[made["replace"]].replacements == 1
    assert [task.task_id for task in ledger.find(headers={"creator_id": 5})] == [made["countdown"]]

    chain = ledger.workflow(made["chain_root"])
    assert chain is not None
    assert [(d, n.task.name) for d, n in chain.root.walk()] == [
        (0, "export.add"),
        (1, "export.add"),
        (2, "data.sync.double"),
    ]
    assert chain.state == "SUCCESS"
    assert chain.tasks[-1].task_id == made["chain"] and chain.tasks[-1].result == 12

    spawned = ledger.workflow(made["spawn"])
    assert spawned is not None
    assert [node.task.name for node in spawned.root.children] == ["data.sync.double"] * 3

    assert {recorded[child].group_id for child in made["group"]} != {None}
    assert recorded[made["chord"]].result == sum(i + 1 for i in range(4))
    assert {recorded[child].group_id for child in made["chord_header"]} != {None}
    deployment.stop_all()


@pytest.mark.parametrize("deployment", ["rabbitmq", "embedded"], indirect=True)
def test_nothing_is_lost_while_no_monitor_runs(deployment: Deployment) -> None:
    deployment.start("worker", "one")
    deployment.produce("many", 50)
    deployment.wait_until(lambda: len(deployment.notes("ran")) == 50, "50 runs")
    assert deployment.all_tasks() == []
    deployment.start("monitor")
    deployment.wait_until(lambda: len(deployment.all_tasks()) == 50, "50 records")
    assert {task.state for task in deployment.all_tasks()} == {"SUCCESS"}
