"""The sub-commands as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Producer, Queue

from cadasta.workertoolbox.ledger.ledger import Ledger
from cadasta.workertoolbox.messages.decoding import TaskRecord

APP = (
    "from celery import Celery\n"
    "from cadasta.workertoolbox import Config\n"
    "app = Celery('shop')\n"
    "app.config_from_object(Config.local(['export'], '.'))\n"
)
NOW = datetime.now(timezone.utc)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with an app and a ledger of four tasks, 1, 2, 3 and 400 days old."""
    (tmp_path / "shop.py").write_text(APP)
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    root = {"root_id": "root", "parent_id": "root"}
    fields: list[dict[str, Any]] = [
        {"task_id": "root", "name": "export.pdf", "headers": {"creator_id": 5}},
        {"task_id": "child", "name": "mail.send", **root},
        {"task_id": "quiet", "name": "export.quiet", "ignore_result": True},
        {"task_id": "old", "name": "export.pdf", "queue": "export"},
    ]
    for days, given in zip((1, 2, 3, 400), fields, strict=True):
        record = TaskRecord(published_at=NOW - timedelta(days=days), args="[1]", **given)
        ledger.record([record])
    ledger.close()
    database = ledger._engine.raw_connection()
    database.execute(
        "INSERT INTO celery_taskmeta (task_id, status, result) VALUES ('root', 'SUCCESS', '7'),"
        ' (\'old\', \'FAILURE\', \'{"exc_type": "ValueError", "exc_message": ["no"]}\')'
    )
    database.commit()
    database.close()
    ledger.close()
    return tmp_path


def celery(folder: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "shop", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout if code < 2 else done.stderr


def ids(output: str) -> list[str]:
    return [json.loads(line)["task_id"] for line in output.splitlines()]


def test_tasks_are_listed_and_filtered(shop: Path) -> None:
    shown = celery(shop, "tasks")
    assert [line.split()[0] for line in shown.splitlines()] == [
        "State",
        "SUCCESS",
        "PENDING",
        "PENDING",
        "FAILURE",
    ]
    assert ids(celery(shop, "tasks", "--json")) == ["root", "child", "quiet", "old"]
    assert ids(celery(shop, "tasks", "--json", "--state", "failure", "--queue", "export")) == [
        "old"
    ]
    assert ids(celery(shop, "tasks", "--json", "--name", "export.*", "--since", "7d")) == [
        "root",
        "quiet",
    ]
    assert ids(celery(shop, "tasks", "--json", "--header", "creator_id=5")) == ["root"]
    assert celery(shop, "tasks", "--name", "nothing", "--json", code=1) == ""
    assert "names='' is no text" in celery(shop, "tasks", "--name", "", code=2)


def test_pages_follow_each_other(shop: Path) -> None:
    first = celery(shop, "tasks", "--limit", "3")
    cursor = first.splitlines()[-1].removeprefix("More: --after ")
    assert ids(celery(shop, "tasks", "--limit", "3", "--json", "--after", cursor)) == ["old"]
    assert "cursor" in celery(shop, "tasks", "--after", "nonsense", code=2)


def test_one_task_is_shown_with_its_workflow(shop: Path) -> None:
    shown = celery(shop, "task", "child")
    assert "mail.send" in shown
    assert "workflow STARTED" in shown
    assert "└── PENDING  mail.send  child" in shown
    found = json.loads(celery(shop, "task", "root", "--json"))
    assert (found["result"], found["args"], found["headers"]) == (7, [1], {"creator_id": 5})
    assert [node["task_id"] for node in found["workflow"]["tree"]] == ["root", "child"]
    assert "ValueError: no" in celery(shop, "task", "old")
    celery(shop, "task", "unknown", code=1)


def test_the_ledger_is_kept(shop: Path) -> None:
    assert "up to date" in celery(shop, "ledger", "upgrade")
    summary = [
        json.loads(line) for line in celery(shop, "ledger", "summary", "--json").splitlines()
    ]
    assert {entry["name"]: entry["states"] for entry in summary} == {
        "export.pdf": {"SUCCESS": 1, "FAILURE": 1},
        "export.quiet": {"PENDING": 1},
        "mail.send": {"PENDING": 1},
    }
    assert "export.quiet" in celery(shop, "ledger", "summary")
    # a task whose result is ignored is not unfinished: nobody will ever know
    assert ids(celery(shop, "ledger", "unfinished", "--json", code=1)) == ["child"]
    assert celery(shop, "ledger", "unfinished", "--older-than", "1w") is not None
    kept = celery(shop, "ledger", "prune", "--older-than", "1w", "--keep-failures", "--json")
    assert json.loads(kept) == {"deleted": 0}
    assert celery(shop, "ledger", "prune", "--older-than", "1w") == "1 tasks deleted.\n"
    assert ids(celery(shop, "tasks", "--json")) == ["root", "child", "quiet"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tasks", "--since", "yesterday"), "neither a time (UTC), such as"),
        (("tasks", "--header", "creator_id"), "write name=value"),
        (("ledger", "prune"), "--older-than"),
        (("ledger", "prune", "--older-than", "5"), "is no duration"),
        (("monitor", "--pidfile", "/no/folder/pid"), "Error: [Errno 2] No such file"),
        (("monitor", "--logfile", "/no/folder/log"), "Error: [Errno 2] No such file"),
        (("monitor", "--batch", "0"), "--batch"),
    ],
)
def test_wrong_words_are_explained(shop: Path, words: tuple[str, ...], message: str) -> None:
    assert message in celery(shop, *words, code=2)


def test_an_app_without_a_database_is_told_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from celery import Celery\n"
        "from cadasta.workertoolbox import Config\n"
        "app = Celery('shop')\n"
        "app.config_from_object(Config(['export'], broker_url='amqp://', result_backend='rpc://'))\n"
    )
    assert "CELERY_LEDGER_URL" in celery(tmp_path, "tasks", code=2)
    (tmp_path / "shop.py").write_text("from celery import Celery\napp = Celery('shop')\n")
    assert "Config(queues=[...])" in celery(tmp_path, "monitor", code=2)


def test_commands_that_read_make_no_tables(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    for words in (("tasks",), ("task", "a"), ("ledger", "summary"), ("ledger", "unfinished")):
        assert "ledger upgrade" in celery(tmp_path, *words, code=2)
    assert not (tmp_path / "ledger.sqlite3").exists()
    assert "applied" in celery(tmp_path, "ledger", "upgrade")
    celery(tmp_path, "tasks", code=1)


def test_help_names_what_each_command_does(shop: Path) -> None:
    for words in (("monitor",), ("tasks",), ("task",), ("ledger",), ("ledger", "prune")):
        assert "Usage:" in celery(shop, *words, "--help")


def test_celerys_own_commands_reach_an_embedded_broker_without_an_app(tmp_path: Path) -> None:
    with Connection(f"embedded:///{tmp_path}/broker.sqlite3") as connection:
        Producer(connection).publish([], routing_key="celery", declare=[Queue("celery")])
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-b", connection.as_uri(), "purge", "-f"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert "Purged 1 message" in done.stdout, done.stderr
