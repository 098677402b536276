"""What the monitor makes of messages, on the embedded broker."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.message import Message
from sqlalchemy import create_engine, text

from cadasta.workertoolbox import Config, Ledger
from cadasta.workertoolbox.errors import ConfigError
from cadasta.workertoolbox.ledger.model import Undecodable
from cadasta.workertoolbox.messages.decoding import TaskRecord
from cadasta.workertoolbox.messages.policy import StoragePolicy
from cadasta.workertoolbox.monitor.monitor import policy_of
from cadasta.workertoolbox.monitor.monitor import undecodable as undecodable_of
from cadasta.workertoolbox.monitor.writer import Batch, Writer
from tests.monitor_thread import monitoring
from tests.services import wait_until

SECRET = "hush-hush"


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    made = []

    def make(include: str = "", **settings: Any) -> Any:
        app = Celery("proj", set_as_current=False, include=[include] if include else [])
        app.config_from_object(Config.local(["export"], tmp_path, **settings))
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


def undecodable(tmp_path: Path) -> list[Any]:
    engine = create_engine(f"sqlite:///{tmp_path}/ledger.sqlite3")
    try:
        with engine.connect() as connection:
            return list(connection.execute(text("SELECT * FROM celery_task_undecodable")))
    finally:
        engine.dispose()


def test_redaction_knows_the_tasks_of_modules_that_only_workers_import(
    make_app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "redacted_tasks.py").write_text(
        "from celery import shared_task\n"
        "@shared_task(name='export.login')\n"
        "def login(user, password): ...\n"
    )
    app = make_app(include="redacted_tasks", MONITOR_REDACT=["password"])
    redact = policy_of(app).redact
    sys.modules.pop("redacted_tasks")
    assert redact is not None
    assert redact("export.login", ["ann", SECRET], {}) == (["ann", "***"], {})
    broken = make_app(include="no_such_module", MONITOR_REDACT=["password"])
    with pytest.raises(ConfigError, match="no_such_module"):
        policy_of(broken)


@pytest.mark.parametrize("rule", [{"MONITOR_REDACT": ["pass*"]}, {"MONITOR_STORE_ARGS": False}])
def test_what_is_no_task_message_leaves_no_body_where_arguments_are_hidden(
    make_app: Any, tmp_path: Path, rule: Any
) -> None:
    app = make_app(**rule)
    with monitoring(app, interval=0.02):
        headers = {"passphrase": SECRET, "tenant": 5}
        app.send_task("t", (SECRET,), task_id="i" * 200, headers=headers)
        rows = wait_until(lambda: undecodable(tmp_path), what="a row")
    assert len(rows) == 1
    assert (SECRET in str(rows), rows[0].body) == ("MONITOR_REDACT" not in rule, None)
    assert "has 200 characters" in rows[0].error and '"tenant":5' in rows[0].headers


def test_a_redelivered_message_has_the_digest_of_its_first_delivery() -> None:
    def digest(**headers: Any) -> str | None:
        message = Message(b"no task", headers=headers, properties={"delivery_tag": len(headers)})
        return undecodable_of(message, ValueError(), StoragePolicy()).digest

    assert digest(a=1) == digest(a=1, **{"x-delivery-count": 2})
    assert digest(a=1) != digest(a=2)


def test_a_batch_that_is_tried_again_counts_each_publication_once(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    ledger.upgrade()
    batch = Batch(None)
    batch.add(1, TaskRecord(task_id="a", name="n"))
    batch.add(2, Undecodable(error="no task"))
    engine = create_engine(f"sqlite:///{tmp_path}/ledger.sqlite3")

    def rename(old: str, new: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    rename("celery_task_undecodable", "away")
    writer = Writer(ledger)
    writer.submit(batch)
    writer.start()
    time.sleep(0.7)  # two attempts
    rename("away", "celery_task_undecodable")
    wait_until(lambda: writer.has_written, what="a write")
    writer.stop()
    task = ledger.get("a")
    assert task is not None and task.publications == 1
    ledger.close()
    engine.dispose()
