"""What a caller says at a publish stays true, and is the same, on each broker.

The worker consumes ``export`` alone, so that whatever goes elsewhere never ends.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from http import HTTPStatus
from typing import Any
from uuid import UUID

import pytest
from celery import chain, chord, group

from tests.acceptance.deployment import Deployment

TENANT = UUID("6244e55d-db53-4993-ab53-c68bf3fb7d65")
WHEN = datetime(2026, 11, 25, 12, 30, 15, 123456, timezone(timedelta(hours=8)))
#: Values that an AMQP table, or JSON, does not take, or not as they are; and what they become.
ODD: dict[str, Any] = {
    "tenant": TENANT,
    "when": WHEN,
    "many": {3, 1, 2},
    "deep": {
        1: [Decimal("1.50"), (b"raw", b"\xff"), 2**70, -(2**63), float("-inf"), HTTPStatus.OK],
        None: WHEN.date(),
    },
}
EVEN: dict[str, Any] = {
    "tenant": str(TENANT),
    "when": "2026-11-25T12:30:15.123456+08:00",
    "many": [1, 2, 3],
    "deep": {
        "1": ["1.50", ["raw", "\\xff"], "1180591620717411303424", -(2**63), "-inf", 200],
        "None": "2026-11-25",
    },
}


def test_what_a_caller_said_stays_true(deployment: Deployment) -> None:
    deployment.start("monitor")
    deployment.start("worker", "one", "-Q", "export")
    said: dict[str, Any] = {
        "is_result": True,
        "priority": 5,
        "headers": {"tenant": 7},
        "stamped_headers": ["why"],
        "why": "audit",
    }
    signature, send = deployment.app.signature, deployment.app.send_task
    sent = {
        "retry": send("export.retry", (2, 0), **said),
        "delayed retry": send("export.retry", (1, 1), **said),
        "autoretry": send("export.autoretry", **said),
        "replaced by task": send("export.replace_by", ("task",), **said),
        "replaced by chain": send("export.replace_by", ("chain",), **said),
        "replaced by group": send("export.replace_by", ("group",), **said),
        "replaced by retry": send("export.replace_by", ("retry",), **said),
        "forward": send("export.forward", **said),
    }
    add, total = signature("export.add", (1, 1)), signature("export.total")
    ended = [
        chord([add, add], chain(total, signature("export.add", (1,)))).apply_async(),
        chain(group(add, add), group(total, total)).apply_async(),
        chord([add, add], signature("celery.accumulate", kwargs={"index": 0})).apply_async(
            queue="export"
        ),
    ]
    odd = send("export.headers", headers=ODD, stamped_headers=["odd"], odd={TENANT}, **ODD)
    results = {name: one.get(timeout=60) for name, one in sent.items()}
    assert [one.get(timeout=60) for one in ended[:2]] == [5, [4, 4]]
    seen = odd.get(timeout=60)

    last = {sent[name].id: result for name, result in results.items()}
    deployment.wait_until(
        lambda: all(
            task is not None and task.state == "SUCCESS" and task.result == result
            for task, result in ((deployment.ledger.get(key), last[key]) for key in last)
        ),
        "the records",
    )
    recorded = {name: deployment.ledger.get(one.id) for name, one in sent.items()}
    for name, task in recorded.items():
        assert task is not None
        assert (task.headers, task.properties) == ({"tenant": 7}, {"is_result": True}), name
        assert (task.stamps, task.priority, task.queue) == ({"why": "audit"}, 5, "export"), name
        workflow = deployment.ledger.workflow(task.task_id)
        assert workflow is not None
        assert workflow.results == {task.task_id: results[name]}, name
    # It was given the other one's headers, and is another task.
    forwarded = deployment.ledger.get(results["forward"])
    assert forwarded is not None
    assert (forwarded.headers, forwarded.properties) == ({"tenant": 7}, {})

    assert seen == {"headers": EVEN, "stamps": {"odd": [str(TENANT)]}}
    task = deployment.ledger.get(odd.id)
    assert task is not None
    assert (task.headers, task.properties, task.stamps) == (EVEN, EVEN, {"odd": [str(TENANT)]})
    assert ended[2].get(timeout=60) == [2, 2]
    own = [task for task in deployment.all_tasks() if task.name.startswith("celery.")]
    assert {task.queue for task in own} == {"export"}
    deployment.stop_all()


@pytest.mark.parametrize("deployment", ["rabbitmq-quorum"], indirect=True)
def test_a_delayed_task_has_its_queue_by_its_plain_name(
    deployment: Deployment, postgres_url: str
) -> None:
    name = "q" * 120  # with the digits of the delay more than the column takes
    deployment.change(queues=["export", name], result_backend=f"toolbox+{postgres_url}")
    deployment.start("monitor")
    deployment.start("worker", "one", "-Q", f"export,{name}")
    sent = {
        queue: deployment.app.send_task("export.add", (1, 1), countdown=1, queue=queue)
        for queue in ("export", name)
    }
    for queue, result in sent.items():
        assert result.get(timeout=30) == 2
        assert result.queue == queue
        task = deployment.ledger.get(result.id)
        assert task is not None and task.queue == queue
    deployment.stop_all()
