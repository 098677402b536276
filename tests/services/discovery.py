"""Which services there are: named by the environment, on their standard ports, or private ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import redis

from .databases import check_databases
from .install import install
from .rabbitmq import PrivateRabbitMQ, check_rabbitmq
from .servers import PrivateMariaDB, PrivatePostgres, PrivateRedis, Server


def check_redis(url: str) -> None:
    """Write a key that vanishes by itself; raises redis-py's error where that is not possible."""
    with redis.Redis.from_url(url, socket_connect_timeout=5) as client:
        client.set("toolbox-test-probe", "1", ex=1)


@dataclass(frozen=True)
class Service:
    """A service that tests share: where it usually is, and how to see that it can be used."""

    title: str
    server: type[Server]
    #: Where it is, where nothing else is said.
    standard_url: str
    #: Raises where it cannot be used as the tests need it.
    check: Callable[[str], None]
    #: Whether tests start private ones in any case, to stop them.
    always_installed: bool = False

    @property
    def url(self) -> str:
        """Where it should be."""
        return os.environ.get(self.server.variable) or self.standard_url

    @property
    def place(self) -> str:
        """Host and port, without credentials."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port}"

    def problem(self) -> str | None:
        """Return why it cannot be used, None where it can."""
        try:
            self.check(self.url)
        except Exception as error:  # Each driver has errors of its own; all mean the same here.
            text = " ".join(str(error).split()) or "no reason given"
            return f"{type(error).__name__}: {text[:200]}"
        return None

    def remedy(self) -> str:
        """Return what to do where it cannot be used."""
        return (
            f"{self.title} cannot be used at {self.place}. ./runtests starts one,"
            f" or name one that runs by {self.server.variable}"
        )


SERVICES = {
    service.server.name: service
    for service in (
        Service(
            "RabbitMQ",
            PrivateRabbitMQ,
            "amqp://guest:guest@127.0.0.1:5672//",
            check_rabbitmq,
            always_installed=True,
        ),
        Service(
            "PostgreSQL",
            PrivatePostgres,
            "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres",
            check_databases,
            always_installed=True,
        ),
        Service("Redis", PrivateRedis, "redis://127.0.0.1:6379/0", check_redis),
        Service("MariaDB", PrivateMariaDB, "mysql+pymysql://root@127.0.0.1:3306/", check_databases),
    )
}


def ensure(stack: ExitStack, say: Callable[[str], None]) -> dict[str, str]:
    """Find every service, or start one that ends with ``stack``.

    Returns the environment variables that tell the tests where they are.

    Raises:
        MissingProgram: one is not there, and cannot be installed from here; says what to do.
    """
    variables: dict[str, str] = {}
    absent: list[Service] = []
    for service in SERVICES.values():
        problem = service.problem()
        if problem is None:
            say(f"{service.title}: using the one at {service.place}")
            variables[service.server.variable] = service.url
        else:
            say(f"{service.title}: none to use at {service.place} ({problem})")
            absent.append(service)
    install(
        [
            service.server
            for service in SERVICES.values()
            if (service in absent or service.always_installed) and service.server.find() is None
        ],
        say,
    )
    servers = []
    for service in absent:  # All first, then wait: they start side by side.
        server = service.server()
        stack.callback(server.close)
        server.launch()
        servers.append(server)
    for server in servers:
        server.wait_ready()
        say(f"{server.name}: started a private one on port {server.port}")
        variables.update(server.variables())
    return variables
