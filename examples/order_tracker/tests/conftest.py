"""Fixtures: servers of one's own, and deployments of real processes.

RabbitMQ and PostgreSQL are those of TEST_RABBITMQ_URL and TEST_POSTGRES_URL, else those on the
standard ports. A missing one fails the test with what to do.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from order_tracker.database import Database
from order_tracker.fleet import Fleet
from order_tracker.initialise import initialise
from order_tracker.reading import Summary
from order_tracker.scratch import (
    RABBITMQ_URL,
    ServerMissingError,
    scratch_database,
    scratch_vhost,
)
from order_tracker.settings import Settings
from order_tracker.standing import is_complete, read

#: What would reach the application from whoever runs the tests.
FOREIGN = ("RTB_", "CELERY_", "SENTRY_", "AWS_")


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ServerMissingError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty database."""
    with _told(), scratch_database() as url:
        yield url


@pytest.fixture
def rabbitmq_url() -> Iterator[str]:
    """A virtual host of its own."""
    with _told(), scratch_vhost() as url:
        yield url


@pytest.fixture
def refusing_url() -> str:
    """A RabbitMQ that does not let us in: of a user that it has not."""
    parts = urlsplit(os.environ.get("TEST_RABBITMQ_URL", RABBITMQ_URL))
    return f"{parts.scheme}://nobody:wrong@{parts.netloc.rpartition('@')[2]}//"


@dataclass
class Deployment:
    """An order tracker of real processes."""

    settings: Settings
    fleet: Fleet
    database: Database

    @property
    def url(self) -> str:
        """Of the first API process."""
        return f"http://127.0.0.1:{self.settings.api_port}"

    def init(self, units: int) -> None:
        """Make the tables and so many units."""
        initialise(self.settings, units)

    def start_all(self, apis: int = 1, agents: int = 2) -> None:
        """Start everything but the monitor, and wait until the APIs answer."""
        for number in range(apis):
            self.start_api(number)
        for kind in ("leader", "inbox"):
            self.fleet.start(kind, kind)
        for number in range(agents):
            self.fleet.start(f"agent{number}", "agent")
        for number in range(apis):
            self.wait_for_api(number)

    def start_api(self, number: int = 0) -> None:
        """Start one API process."""
        port = self.settings.api_port + number
        self.fleet.start(f"api{number}", "api", "--bind", f"127.0.0.1:{port}")

    def wait_for_api(self, number: int = 0) -> None:
        """Wait until it answers."""
        url = f"http://127.0.0.1:{self.settings.api_port + number}"
        self.wait_until(lambda: self.call("GET", "/", url=url)[0] == 200, f"api{number}", 30)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        url: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """A request; its status and JSON. Status 0: nobody listens."""
        request = urllib.request.Request(
            f"{url or self.url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **(headers or {})},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except (urllib.error.URLError, ConnectionError):
            return 0, None

    def standing(self) -> Summary:
        """How the work stands, from the database."""
        return read(self.database)

    def wait_until(self, is_so: Callable[[], object], what: str, timeout: float = 60) -> None:
        """Wait for a condition; on failure the ends of all logs are shown."""
        deadline = time.monotonic() + timeout
        while not is_so():
            self.fleet.check()
            if time.monotonic() > deadline:
                logs = "\n".join(
                    f"--- {path.stem}\n{self.fleet.log(path.stem, 1500)}"
                    for path in sorted(self.fleet.folder.glob("*.log"))
                )
                raise AssertionError(f"waited {timeout} s for {what}: {self.standing()}\n{logs}")
            time.sleep(0.02)

    def follow(
        self, timeout: float = 90, meanwhile: Callable[[Summary], None] | None = None
    ) -> int:
        """Sample until all is done; in each sample in flight = min(limit, what is left).

        Returns the number of samples.
        """
        samples = 0

        def is_done() -> bool:
            nonlocal samples
            found = self.standing()
            samples += 1
            assert found.in_flight == min(found.limit, found.total - found.done), found
            if meanwhile is not None:
                meanwhile(found)
            return is_complete(found)

        self.wait_until(is_done, "all units to be done", timeout)
        return samples

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a query gives."""
        with self.database.read() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql)]

    def assert_each_ended_once(self, units: int) -> None:
        """Check the history: each unit has one way, and one end."""
        assert self.standing().done == units
        ways = self.rows(
            "SELECT order_id, from_status, to_status FROM order_transitions ORDER BY id"
        )
        by_unit: dict[int, list[tuple[str | None, str]]] = {}
        for order_id, before, after in ways:
            by_unit.setdefault(order_id, []).append((before, after))
        assert len(by_unit) == units
        for order_id, way in by_unit.items():
            end = way[-1][1]
            assert way == [
                (None, "pending"),
                ("pending", "queued"),
                ("queued", "processing"),
                ("processing", end),
            ], (order_id, way)
            assert end in {"success", "error"}


Deploy = Callable[..., Deployment]


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    """Makes deployments: ``deploy(RTB_...=...)``; embedded unless URLs are given."""
    made: list[Deployment] = []

    def make(**variables: object) -> Deployment:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        given = {
            "RTB_DB_URL": f"sqlite:///{tmp_path}/orders.sqlite3",
            "RTB_API_HOST": f"127.0.0.1:{_free_ports()}",
            "RTB_WORK_SECONDS": "0.01",
            "RTB_SEED": "1",
            **{name: str(value) for name, value in variables.items()},
        }
        settings = Settings.from_environ(given)
        fleet = Fleet(tmp_path, {**clean, **given})
        made.append(Deployment(settings, fleet, Database(settings.db_url)))
        return made[-1]

    yield make
    for one in made:
        one.fleet.stop()
        one.database.close()


def _free_ports() -> int:
    """The first of four ports that nobody listens on, below those of outgoing connections."""
    while True:
        first = 20_000 + secrets.randbelow(3_000) * 4
        try:
            for port in range(first, first + 4):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
