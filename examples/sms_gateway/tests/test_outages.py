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
