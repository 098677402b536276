"""A database and a virtual host that are made for a test or a benchmark, and removed after it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from .errors import OrderTrackerError

RABBITMQ_URL = "amqp://guest:guest@127.0.0.1:5672//"
POSTGRES_URL = "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres"
#: Where servers' programs are that are not on an ordinary user's PATH.
_PROGRAMS = ("/usr/local/sbin", "/usr/sbin", "/opt/homebrew/sbin")


class ServerMissingError(OrderTrackerError):
    """A server cannot be used; says what to do."""


@contextmanager
def scratch_database() -> Iterator[str]:
    """The URL of an empty database on the PostgreSQL of ``TEST_POSTGRES_URL``.

    Raises:
        ServerMissingError: there is none.
    """
    admin = make_url(os.environ.get("TEST_POSTGRES_URL", POSTGRES_URL))
    engine = create_engine(admin, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5})
    name = f"order_tracker_{uuid.uuid4().hex}"
    try:
        try:
            with engine.connect() as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
        except SQLAlchemyError as error:
            raise ServerMissingError(
                f"PostgreSQL cannot be used at {admin.host}:{admin.port or 5432}: start one, or"
                f" name one by TEST_POSTGRES_URL.\n{getattr(error, 'orig', error)}"
            ) from None
        try:
            yield admin.set(database=name).render_as_string(hide_password=False)
        finally:
            with engine.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()


@contextmanager
def scratch_vhost() -> Iterator[str]:
    """The URL of a fresh virtual host on the RabbitMQ of ``TEST_RABBITMQ_URL``.

    It is made by rabbitmqctl, or by the command that ``TEST_RABBITMQ_CTL`` names.

    Raises:
        ServerMissingError: it cannot be made.
    """
    parts = urlsplit(os.environ.get("TEST_RABBITMQ_URL", RABBITMQ_URL))
    name = f"order-tracker-{uuid.uuid4().hex}"
    user = unquote(parts.username or "guest")
    rabbitmqctl("add_vhost", name)
    try:
        rabbitmqctl("set_permissions", "-p", name, user, ".*", ".*", ".*")
        yield f"{parts.scheme}://{parts.netloc}/{name}"
    finally:
        rabbitmqctl("delete_vhost", name)


def rabbitmqctl(*arguments: str) -> str:
    """Run rabbitmqctl; returns what it prints.

    Raises:
        ServerMissingError: it is not there, or failed.
    """
    program, *options = shlex.split(os.environ.get("TEST_RABBITMQ_CTL", "rabbitmqctl"))
    folders = os.pathsep.join([os.environ.get("PATH", ""), *_PROGRAMS])
    path = shutil.which(program, path=folders)
    if path is None:
        raise ServerMissingError(
            f"RabbitMQ: there is no {program} here. Install rabbitmq-server, or name the command by"
            " TEST_RABBITMQ_CTL, such as 'docker exec broker rabbitmqctl'."
        )
    done = subprocess.run(  # noqa: S603 - the user's own command
        [path, *options, *arguments], capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise ServerMissingError(
            "RabbitMQ cannot be used: start it, or name one by TEST_RABBITMQ_URL and"
            f" TEST_RABBITMQ_CTL.\n{done.stdout}{done.stderr}"
        )
    return done.stdout
