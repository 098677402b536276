"""Connections that break in the middle of the work, to the database and to the broker."""

from __future__ import annotations

from typing import Any

from order_tracker.scratch import rabbitmqctl

UNITS = 100
LIMIT = 10


def test_broken_connections(rabbitmq_url: str, postgres_url: str, deploy: Any) -> None:
    tracker = deploy(
        RTB_BROADCAST_MAX_QUEUE=LIMIT,
        RTB_WORK_SECONDS=0.05,
        RTB_BROKER_URL=rabbitmq_url,
        RTB_DB_URL=postgres_url,
        RTB_STALL_TIMEOUT=10,
    )
    tracker.init(UNITS)
    tracker.start_all(agents=2)
    tracker.call("GET", "/go/")
    breaks = [_break_database, _break_broker, _break_database]
    vhost = rabbitmq_url.rpartition("/")[2]

    def break_next(standing: Any) -> None:
        if breaks and standing.done >= (4 - len(breaks)) * 20:
            breaks.pop(0)(tracker, vhost)

    tracker.follow(meanwhile=break_next)
    assert not breaks
    tracker.assert_each_ended_once(UNITS)


def _break_database(tracker: Any, _: str) -> None:
    tracker.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def _break_broker(_: Any, vhost: str) -> None:
    rabbitmqctl("close_all_connections", "--vhost", vhost, "test")
