"""Messages that would harm a careless reader: the monitor stores what it can and goes on."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import InvalidTaskError
from kombu import Connection
from sqlalchemy import text

from cadasta.workertoolbox.plain.urls import database_url
from cadasta.workertoolbox.sql.engines import make_engine
from tests.acceptance.deployment import Deployment

HEADERS: dict[str, Any] = {"lang": "py", "task": "export.add", "argsrepr": "(1, 2)"}


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def publish(connection: Connection, body: Any, **options: Any) -> None:
    connection.Producer().publish(body, exchange="", routing_key="platform.fifo", **options)


def set_apart(deployment: Deployment) -> Sequence[Any]:
    """The rows of messages that are no task messages."""
    url = database_url(deployment.app.conf.result_backend)
    assert url is not None
    engine = make_engine(url)
    with engine.connect() as database:
        rows = database.execute(
            text("SELECT error, body_size, length(body) AS kept FROM celery_task_undecodable")
        ).all()
    engine.dispose()
    return rows


@pytest.mark.parametrize("deployment", ["rabbitmq", "redis", "embedded", "sqs"], indirect=True)
def test_poison_is_set_apart_or_bounded(deployment: Deployment, tmp_path: Path) -> None:
    monitor = deployment.start("monitor")
    bomb = tmp_path / "exploded"
    size = 10 * 2**20 if "sqs" not in deployment.app.conf.broker_url else 2**17
    json_type: dict[str, Any] = {"content_type": "application/json", "content_encoding": "utf-8"}
    pickled: dict[str, Any] = {
        "content_type": "application/x-python-serialize",
        "content_encoding": "binary",
    }
    with deployment.app.connection_for_write() as connection:
        deployment.app.conf.task_routes.monitor(connection.default_channel).declare()
        publish(connection, "{not json", headers={**HEADERS, "id": "not-json"}, **json_type)
        payload = pickle.dumps(Bomb(bomb))
        publish(connection, payload, headers={**HEADERS, "id": "pickled"}, **pickled)
        publish(connection, payload, headers={}, **pickled)
        large = '[["' + "x" * size + '"], {}, {}]'
        publish(connection, large, headers={**HEADERS, "id": "large"}, **json_type)
        publish(connection, "[[], {}, {}]", headers={"task": 5, "id": [1]}, **json_type)
        publish(connection, "[[], {}, {}]", headers={**HEADERS, "id": "x" * 500}, **json_type)
        publish(
            connection,
            '[["\\u0000", "\\ud800"], {"\\u0000": 1}, {}]',
            headers={**HEADERS, "id": "nul", "argsrepr": "a\0b", "note": "c\0d", "eta": "never"},
            **json_type,
        )
        publish(connection, "just words", content_type="text/plain", content_encoding="utf-8")
        publish(
            connection,
            b"\x00not compressed",
            headers={**HEADERS, "id": "compressed", "compression": "application/x-gzip"},
            **json_type,
        )
    last = deployment.app.send_task("export.add", (1, 2))
    deployment.wait_until(lambda: deployment.count() == 5, "the readable messages")
    recorded = {task.task_id: task for task in deployment.all_tasks()}
    assert recorded.keys() == {"not-json", "pickled", "large", "nul", last.id}
    assert recorded["pickled"].args is None
    assert recorded["pickled"].args_repr == "(1, 2)"
    assert recorded["large"].args_truncated and recorded["large"].args is None
    deployment.wait_until(lambda: len(set_apart(deployment)) == 5, "the other messages")
    rows = set_apart(deployment)
    errors = sorted(row.error for row in rows)
    assert any("text/plain" in error for error in errors)
    assert all(row.kept <= 65_536 for row in rows)
    assert not bomb.exists()
    assert monitor.running
    assert monitor.stop() == 0, monitor.log_text()
    assert not bomb.exists()


@pytest.mark.parametrize(
    ("deployment", "durable"),
    [("rabbitmq", True), ("redis", True), ("embedded", False)],
    indirect=["deployment"],
)
def test_arguments_that_cannot_be_pickled_fail_alone(deployment: Deployment, durable: bool) -> None:
    """Without `unpicklable_tasks`, such a message ends the worker, and late each further one."""
    deployment.change(DURABLE=durable)
    deep: Any = 1
    with contextlib.suppress(RecursionError):  # at a depth that depends on Python's version
        while pickle.dumps((1, deep)):
            for _ in range(100):
                deep = {"a": deep}
    app = deployment.app
    worker = deployment.start("worker", "", "-c", "1")
    deployment.start("monitor")
    failed = [app.send_task("export.add", (1, deep), countdown=n) for n in (0, 0, 0.5)]
    last = app.send_task("export.add", (1, 2))
    assert last.get(timeout=30) == 3
    for one in failed:
        with pytest.raises(InvalidTaskError, match="export.add cannot be handed to a pool process"):
            one.get(timeout=30)
    deployment.wait_until(lambda: deployment.count() == 4, "the records")
    summary = deployment.ledger.summary()
    assert summary.states == {"FAILURE": 3, "SUCCESS": 1}
    task = deployment.ledger.get(failed[0].id)
    assert task is not None and task.args == [1, deep]
    assert worker.stop() == 0, worker.log_text()
    # Each was acknowledged: nothing comes back.
    deployment.start("worker", "second", "-c", "1")
    assert app.send_task("export.add", (2, 2)).get(timeout=30) == 4
    assert len([words for words in deployment.notes("ran") if words[1] == "export.add"]) == 2
