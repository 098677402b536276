"""Databases and brokers that go away and come back: nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from sms_gateway.local import Local, wait_until
from sqlalchemy.engine import make_url

#: Seconds that the database is away: longer than Celery's own backend tries to store a state.
AWAY = 8


@contextmanager
def closed(url: str, postgres: Callable[[str], None]) -> Iterator[None]:
    """A database that takes no connections and has lost those that it had."""
    name = make_url(url).database
    postgres(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    try:
        postgres(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        yield
    finally:
        postgres(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def post(local: Local, first: int, count: int) -> list[str]:
    """Post so many texts; their request ids."""
    numbers = [f"63917{index:07}" for index in range(first, first + count)]
    answers = [local.text(number, "bord on") for number in numbers]
    assert {answer["status"] for answer in answers} == {202}
    return [answer["request_id"] for answer in answers]


@pytest.fixture
def running(gateway: Callable[..., Local], on_servers: dict[str, str]) -> Iterator[Local]:
    with gateway(**on_servers, SMS_SEND_TIMEOUT="2") as local:
        local.start_web()
        local.start_worker("worker")
        local.wait_until_ready("worker")
        yield local


def test_texts_wait_for_the_database_and_outlive_lost_connections(
    running: Local,
    on_servers: dict[str, str],
    postgres: Callable[[str], None],
    rabbitmqctl: Callable[..., None],
) -> None:
    local = running
    requests = post(local, 0, 5)
    with closed(on_servers["SMS_DATABASE_URL"], postgres):
        requests += post(local, 5, 5)
        time.sleep(AWAY)
        assert local.http.request("GET", f"{local.api_url}/health").json()["down"] == ["database"]
        requests += post(local, 10, 5)
    vhost = urlsplit(on_servers["CELERY_BROKER_URL"]).path[1:]
    rabbitmqctl("close_all_connections", "--vhost", vhost, "a test")
    requests += post(local, 15, 5)

    def ask() -> Any:
        found = [local.operator("GET", f"/messages/{one}")[1] for one in requests]
        return all(one.get("delivery_state") == "sent" for one in found)

    wait_until(ask, "all replies", 90)
    sent = local.sent()
    assert len(sent) == len({one["mobile_number"] for one in sent}) == len(requests)


def test_what_a_broker_lost_is_queued_again(gateway: Callable[..., Local]) -> None:
    with gateway() as local:
        local.start_web()
        local.start_worker("storing", "message,broadcast")
        local.start_worker("handling", "bord")
        local.wait_until_ready("storing", "handling")
        post(local, 0, 2)
        content = {"keyword": "bord", "message": "News"}

        def broadcast() -> Any:
            """The last broadcast, once it is queued to its end."""
            _, found = local.operator("GET", f"/broadcast/{made['id']}")
            return found["queued_at"] and found

        def subscribed() -> bool:
            """Whether both texts are handled; their replies wait, since nobody sends."""
            return local.run("-m", "sms_gateway", "outbox").lstrip().startswith("2 queued")

        wait_until(subscribed, "two subscribers")
        local.stop("handling")
        [unanswered] = post(local, 2, 1)
        made = local.operator("POST", "/broadcast", content)[1]
        assert wait_until(broadcast, "a broadcast")["pending"] == 2
        local.run("-m", "celery", "-A", "sms_gateway", "purge", "-f", "-Q", "bord,reply")

        requeued = local.run("-m", "sms_gateway", "requeue", "--older-than", "0s")
        assert "1 texts without an answer" in requeued
        assert "4 messages that wait to be sent" in requeued
        local.start_worker("rest", "bord,reply")
        wait_until(lambda: not broadcast()["pending"], "the broadcast")
        path = f"/messages/{unanswered}"
        wait_until(lambda: local.operator("GET", path)[1]["delivery_state"] == "sent", "a reply")
        assert len(local.sent()) == 5
