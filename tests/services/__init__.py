"""The services that tests use: finding them, starting private ones, and child processes.

``python -m tests.services [command...]`` runs a command with every service there.
"""

from __future__ import annotations

from .confirms import ConfirmProxy, Verdict
from .databases import create_database, drop_database
from .discovery import SERVICES, Service, ensure
from .process import Process, find_program, free_port, wait_until
from .proxy import SilentProxy
from .rabbitmq import HttpVhosts, PrivateRabbitMQ, VhostPool, connect_once, vhosts_for
from .servers import (
    MissingProgram,
    MotoServer,
    PrivateMariaDB,
    PrivatePostgres,
    PrivateRedis,
    Server,
)

__all__ = [
    "SERVICES",
    "ConfirmProxy",
    "HttpVhosts",
    "MissingProgram",
    "MotoServer",
    "PrivateMariaDB",
    "PrivatePostgres",
    "PrivateRabbitMQ",
    "PrivateRedis",
    "Process",
    "Server",
    "Service",
    "SilentProxy",
    "Verdict",
    "VhostPool",
    "connect_once",
    "create_database",
    "drop_database",
    "ensure",
    "find_program",
    "free_port",
    "vhosts_for",
    "wait_until",
]
