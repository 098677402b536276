"""Connections that break in the middle of the work, to the database and to the broker."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

import pytest
from celery.exceptions import Reject
from order_tracker.database import Database
from order_tracker.errors import BrokerAwayError
from order_tracker.messages import again_if_broker_is_away
from order_tracker.scratch import rabbitmqctl
from sqlalchemy import text

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


def test_the_broker_is_away_when_the_feeding_starts(deploy: Any) -> None:
    tracker = deploy(RTB_BROADCAST_MAX_QUEUE=2, RTB_BROKER_URL="amqp://guest:guest@127.0.0.1:1//")
    tracker.init(5)
    tracker.start_api()
    tracker.wait_for_api()
    status, answer = tracker.call("GET", "/go/")
    assert (status, "the broker cannot be reached" in answer["error"]["message"]) == (503, True)
    assert tracker.standing().counts["queued"] == 2
    tracker.fleet.stop()

    # It comes: what has its place is sent after all.
    tracker.fleet.environ["RTB_BROKER_URL"] = f"embedded:///{tracker.fleet.folder}/broker.sqlite3"
    tracker.start_api()
    query = "SELECT count(*) FROM order_feedings WHERE sent_at IS NOT NULL"
    tracker.wait_until(lambda: tracker.rows(query) == [(2,)], "two messages")


def test_the_broker_refuses_to_work_for_us(deploy: Any, refusing_url: str) -> None:
    tracker = deploy(RTB_BROKER_URL=refusing_url)
    tracker.init(0)
    tracker.start_api()
    tracker.wait_for_api()
    assert tracker.call("GET", "/go/")[0] == 200
    assert tracker.call("POST", "/orders", {})[0] == 201  # It is there, and sent later.
    assert tracker.standing().counts["queued"] == 1


def test_the_database_is_broken(deploy: Any) -> None:
    tracker = deploy()
    tracker.init(1)
    tracker.start_api()
    tracker.wait_for_api()
    with tracker.database.write() as connection:
        connection.exec_driver_sql("DROP TABLE feed")
    status, answer = tracker.call("GET", "/")
    assert (status, "the database cannot be used" in answer["error"]["message"]) == (503, True)
    request = urllib.request.Request(f"{tracker.url}/board", headers={"Accept": "text/html"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value as page:
        assert (page.code, b"The board cannot be shown" in page.read()) == (503, True)


def test_a_process_that_stops_in_a_transaction_does_not_stop_all(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.read() as connection:
        query = text("SHOW idle_in_transaction_session_timeout")
        assert connection.execute(query).scalar_one() == "30s"
    database.close()


def test_what_cannot_be_published_is_delivered_again() -> None:
    with pytest.raises(Reject) as caught, again_if_broker_is_away():
        raise BrokerAwayError("away")
    assert caught.value.requeue is True
