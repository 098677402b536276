"""SIGKILL of each process in turn: every unit ends once, none is stuck, and the limit holds."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

#: TEST_FULL=1: a thousand units, and each kind of process is killed six times.
ROUNDS = 6 if os.environ.get("TEST_FULL") == "1" else 1
UNITS = 100 if ROUNDS == 1 else 1000
LIMIT = 20
PATIENCE = 90 * ROUNDS  # seconds

pytestmark = pytest.mark.timeout(PATIENCE + 60)


def test_embedded(deploy: Any) -> None:
    tracker = deploy(RTB_BROADCAST_MAX_QUEUE=LIMIT, RTB_WORK_SECONDS=0.05, RTB_ERROR_RATE=0.2)
    _kill_each(tracker, apis=1, agents=2)


def test_rabbitmq_and_postgres(rabbitmq_url: str, postgres_url: str, deploy: Any) -> None:
    tracker = deploy(
        RTB_BROADCAST_MAX_QUEUE=LIMIT,
        RTB_WORK_SECONDS=0.05,
        RTB_ERROR_RATE=0.2,
        RTB_BROKER_URL=rabbitmq_url,
        RTB_DB_URL=postgres_url,
    )
    _kill_each(tracker, apis=2, agents=4)


def _kill_each(tracker: Any, apis: int, agents: int) -> None:
    tracker.init(UNITS)
    tracker.start_all(apis, agents)
    status, first = tracker.call("GET", "/go/")
    assert (status, first["sent"]) == (200, list(range(1, LIMIT + 1)))
    assert tracker.call("POST", "/go")[1]["sent"] == []  # asking twice starts nothing twice
    victims = ["agent0", "leader", "api0", "inbox"] * ROUNDS
    every = UNITS // (len(victims) + 2)
    kills = len(victims)

    def kill_next(standing: Any) -> None:
        if victims and standing.done >= (kills + 1 - len(victims)) * every:
            name = victims.pop(0)
            tracker.fleet.kill(name)
            if name.startswith("api"):
                tracker.start_api(int(name[-1]))
            else:
                tracker.fleet.start(name, name.rstrip("01"))

    tracker.follow(PATIENCE, meanwhile=kill_next)
    assert not victims
    tracker.assert_each_ended_once(UNITS)
    tracker.wait_for_api()
    found = tracker.call("GET", "/orders/1")[1]
    assert [one["to_status"] for one in found["history"]][:3] == ["pending", "queued", "processing"]
    assert len(found["task_ids"]) == 2
    codes = tracker.fleet.stop()
    assert set(codes.values()) == {0}, codes


def test_an_agent_killed_in_the_middle_of_a_unit(deploy: Any) -> None:
    tracker = deploy(RTB_WORK_SECONDS=1, RTB_ERROR_RATE=0, RTB_BROADCAST_MAX_QUEUE=1)
    tracker.init(2)
    tracker.start_all(agents=1)
    tracker.call("GET", "/go/")

    def wait_for_work(order_id: int) -> None:
        way = ["pending", "queued", "processing"]
        query = f"SELECT to_status FROM order_transitions WHERE order_id = {order_id} ORDER BY id"
        tracker.wait_until(lambda: [one for (one,) in tracker.rows(query)] == way, "a unit in work")

    wait_for_work(1)  # of its pool's process, which the agent replaces
    parent = tracker.fleet.pid("agent0")
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGKILL)
    wait_for_work(2)  # of the agent itself
    tracker.fleet.kill("agent0")
    tracker.fleet.start("agent0", "agent")
    tracker.follow()
    tracker.assert_each_ended_once(2)
    ends = tracker.rows("SELECT count(*) FROM order_transitions WHERE to_status = 'success'")
    assert ends == [(2,)]


def test_a_lost_message_is_made_good_after_the_stall_timeout(deploy: Any) -> None:
    tracker = deploy(RTB_STALL_TIMEOUT=1, RTB_BROADCAST_MAX_QUEUE=3)
    tracker.init(6)
    tracker.start_api()
    tracker.wait_for_api()
    assert len(tracker.call("GET", "/go/")[1]["sent"]) == 3
    time.sleep(1.2)  # No leader is there: by now the messages have expired.
    for kind in ("leader", "inbox", "agent"):
        tracker.fleet.start(kind, kind)
    tracker.follow()
    tracker.assert_each_ended_once(6)
    fed = tracker.rows("SELECT order_id, count(*) FROM order_feedings GROUP BY 1 ORDER BY 1")
    assert all(number > 1 for _, number in fed[:3])
