"""Installing missing servers with the system's package manager."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .process import find_program
from .servers import MissingProgram, Server


@dataclass(frozen=True)
class Manager:
    """A package manager: its commands, and what it calls each server."""

    name: str
    commands: tuple[str, ...]
    packages: dict[str, str]
    #: Whether it is run by root (with sudo) or by the ordinary user.
    as_root: bool = True


MANAGERS = (
    Manager(
        "apt-get",
        ("apt-get update", "apt-get install --yes --no-install-recommends"),
        {
            "rabbitmq": "rabbitmq-server",
            "postgres": "postgresql",
            "redis": "redis-server",
            "mariadb": "mariadb-server",
        },
    ),
    Manager(
        "dnf",
        ("dnf install --assumeyes",),
        {
            "rabbitmq": "rabbitmq-server",
            "postgres": "postgresql-server",
            "redis": "redis",
            "mariadb": "mariadb-server",
        },
    ),
    Manager(
        "brew",
        ("brew install",),
        {
            "rabbitmq": "rabbitmq",
            "postgres": "postgresql",
            "redis": "redis",
            "mariadb": "mariadb",
        },
        as_root=False,
    ),
)


def install(servers: Sequence[type[Server]], say: Callable[[str], None]) -> None:
    """Install the programs of these servers, when run as root.

    Raises:
        MissingProgram: it cannot be done from here, or failed; says what to do.
    """
    if not servers:
        return
    names = ", ".join(server.name for server in servers)
    other_way = "or name running ones by " + ", ".join(server.variable for server in servers)
    manager = next((one for one in MANAGERS if find_program(one.name)), None)
    if manager is None:
        raise MissingProgram(f"Missing: {names}. Install them here, {other_way}.")
    *preparing, installing = manager.commands
    packages = " ".join(manager.packages[server.name] for server in servers)
    commands = [*preparing, f"{installing} {packages}"]
    if not manager.as_root or os.geteuid() != 0:
        sudo = "sudo " if manager.as_root else ""
        line = " && ".join(sudo + command for command in commands)
        raise MissingProgram(f"Missing: {names}. Install them:\n\n    {line}\n\n{other_way}.")
    for command in commands:
        say(f"$ {command}")
        done = subprocess.run(
            command.split(),
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise MissingProgram(
                f"{command} failed with code {done.returncode}:\n{done.stdout[-3000:]}\n"
                f"Mend that and run it again, {other_way}."
            )
    left = [server.name for server in servers if server.find() is None]
    if left:
        raise MissingProgram(
            f"{manager.name} installed {packages}, but there is still no program for"
            f" {', '.join(left)}: install them by hand, {other_way}."
        )
