"""A hundred units to their end, by real processes; the limit holds at every moment.

On the embedded default, the test of the demo and those of the kills do so.
"""

from __future__ import annotations

from typing import Any

UNITS = 100
LIMIT = 20


def test_rabbitmq_and_postgres(rabbitmq_url: str, postgres_url: str, deploy: Any) -> None:
    tracker = deploy(
        RTB_BROADCAST_MAX_QUEUE=LIMIT, RTB_BROKER_URL=rabbitmq_url, RTB_DB_URL=postgres_url
    )
    tracker.init(UNITS)
    tracker.start_all(apis=2, agents=4)
    _to_the_end(tracker)


def _to_the_end(tracker: Any) -> None:
    status, first = tracker.call("GET", "/go/")
    assert (status, first["sent"]) == (200, list(range(1, LIMIT + 1)))
    assert tracker.call("POST", "/go")[1]["sent"] == []  # asking twice starts nothing twice
    assert tracker.follow() > 20
    tracker.assert_each_ended_once(UNITS)
    found = tracker.call("GET", "/orders/1")[1]
    assert [one["to_status"] for one in found["history"]][:3] == ["pending", "queued", "processing"]
    assert len(found["task_ids"]) == 2
    codes = tracker.fleet.stop()
    assert set(codes.values()) == {0}, codes
