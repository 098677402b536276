"""Trees and states of workflows, from tasks alone."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from cadasta.workertoolbox.ledger.model import Task, Workflow
from cadasta.workertoolbox.ledger.workflow import build_workflow, overall_state

NOW = datetime(2024, 1, 1, tzinfo=timezone.utc)


def make(task_id: str, parent_id: str | None = None, age: int = 0, **fields: Any) -> Task:
    unset = dict.fromkeys(
        "queue root_id group_id args kwargs args_repr kwargs_repr eta expires origin priority "
        "time_limit soft_time_limit".split()
    )
    moment = NOW - timedelta(seconds=age)
    given = {
        **unset,
        **{"task_id": task_id, "name": "name", "parent_id": parent_id},
        **{"args_truncated": False, "ignore_result": False},
        **{"retries": 0, "replacements": 0, "publications": 1},
        **{"stamps": {}, "headers": {}, "properties": {}},
        **{"published_at": moment, "last_published_at": moment, "recorded_at": moment},
        **fields,
    }
    return Task(**given)


def tree(workflow: Workflow | None) -> list[tuple[int, str]]:
    assert workflow is not None
    return [(depth, node.task.task_id) for depth, node in workflow.root.walk()]


def test_children_are_in_order_of_publication() -> None:
    tasks = [make("c", "r", 1), make("r", age=9), make("a", "r", 3), make("b", "a", 2)]
    assert tree(build_workflow(tasks, "r")) == [(0, "r"), (1, "a"), (2, "b"), (1, "c")]


def test_who_has_lost_the_parent_comes_under_the_root() -> None:
    tasks = [make("r", age=9), make("a", "missing", 3), make("b", None, 2), make("c", "a", 1)]
    assert tree(build_workflow(tasks, "r")) == [(0, "r"), (1, "a"), (2, "c"), (1, "b")]


def test_a_chords_body_comes_under_who_asked_for_the_chord() -> None:
    tasks = [
        make("r", age=9),
        make("asks", "r", 8),
        make("member", "asks", 7),
        make("unlock", "asks", 6, name="celery.chord_unlock"),
        make("body", "unlock", 5),
        make("again", "unlock", 4, name="celery.chord_unlock"),
        make("last", "again", 3),
    ]
    assert tree(build_workflow(tasks, "r")) == [
        (0, "r"),
        (1, "asks"),
        *((2, task_id) for task_id in ("member", "body", "last")),
    ]
    circle = [make(one, other, name="celery.chord_unlock") for one, other in ("uv", "vu")]
    assert tree(build_workflow([make("r", age=9), make("a", "u"), *circle], "r"))[1] == (1, "a")


def test_without_its_root() -> None:
    tasks = [make("b", "a", 1), make("a", "r", 3), make("c", "r", 2)]
    assert tree(build_workflow(tasks, "r")) == [(0, "a"), (1, "c"), (1, "b")]


def test_nothing() -> None:
    assert build_workflow([], "r") is None
    assert build_workflow([make("u", name="celery.chord_unlock")], "u") is None


@pytest.mark.parametrize("root", ["a", "r"])
def test_circles_do_not_hang(root: str) -> None:
    tasks = [make("a", "c", 5), make("b", "a", 4), make("c", "b", 3), make("d", "d", 2)]
    found = build_workflow([*tasks, make("r", "r", 9)], root)
    assert found is not None
    assert sorted(task.task_id for task in found.tasks) == ["a", "b", "c", "d", "r"]
    only_circle = build_workflow(tasks[:3], "r")
    assert tree(only_circle) == [(0, "a"), (1, "b"), (2, "c")]


def test_a_chain_of_ten_thousand() -> None:
    tasks = [make("0", age=10_000)]
    tasks += [make(f"{n}", f"{n - 1}", 10_000 - n) for n in range(1, 10_000)]
    random.Random(1).shuffle(tasks)
    found = build_workflow(tasks, "0")
    assert found is not None
    assert [node.task.task_id for _, node in found.root.walk()] == [f"{n}" for n in range(10_000)]
    assert max(depth for depth, _ in found.root.walk()) == 9_999
    assert "1 children" in repr(found) and repr(found) == repr(found)
    assert found != build_workflow(tasks, "0")  # by identity: no comparison in the depth


def test_ten_thousand_children() -> None:
    found = build_workflow([make("r"), *(make(f"{n}", "r") for n in range(10_000))], "r")
    assert found is not None and len(found.root.children) == 10_000


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["SUCCESS", "SUCCESS"], "SUCCESS"),
        (["SUCCESS", "FAILURE", "PENDING"], "FAILURE"),
        (["PENDING", "PENDING"], "PENDING"),
        (["SUCCESS", "PENDING"], "STARTED"),
        (["REVOKED", "REVOKED"], "REVOKED"),
        (["RETRY", "SUCCESS"], "STARTED"),
    ],
)
def test_overall_state(states: list[str], expected: str) -> None:
    tasks = [make(f"{n}", state=state) for n, state in enumerate(states)]
    unlock = make("u", "0", name="celery.chord_unlock", state="FAILURE")
    assert overall_state([*tasks, unlock]) == expected
    found = build_workflow([*tasks, unlock], "0")
    assert found is not None and found.state == expected
    assert "u" not in [task.task_id for task in found.tasks]


def test_results_of_flagged_tasks() -> None:
    flag = {"is_result": True}
    tasks = [
        make("r", result=1, state="SUCCESS"),
        make("a", "r", 3, result=2, state="SUCCESS", properties=flag),
        make("b", "r", 2, result="ValueError: x", state="FAILURE", properties=flag),
        make("c", "r", 1, result=None, state="SUCCESS", properties=flag),
        make("d", "r", 1, result=4, state="SUCCESS", properties={"is_result": False}),
    ]
    found = build_workflow(tasks, "r")
    assert found is not None and found.results == {"a": 2, "c": None}
