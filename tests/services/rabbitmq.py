"""RabbitMQ: a private server, and virtual hosts of one's own on any server."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import urllib.error
import urllib.request
import uuid
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

import amqp

from .process import Process, find_program, free_port
from .servers import MissingProgram, Server

ERLANG_FOLDERS = ("/usr/lib/erlang/erts-*/bin", "/usr/lib64/erlang/erts-*/bin")


class Vhosts(Protocol):
    """Makes and removes virtual hosts."""

    def change(self, create: list[str], delete: list[str]) -> None:
        """Create virtual hosts that the tests' user may use, and delete those others that exist."""


class ControlVhosts:
    """By rabbitmqctl. It takes 0.4 s a call, so that several changes go into one."""

    def __init__(self, command: list[str], user: str) -> None:
        self.command = command
        self.user = user

    def change(self, create: list[str], delete: list[str]) -> None:
        """Do it all in one call; raises AssertionError with what rabbitmqctl says."""
        # No ordinary sub-command takes several virtual hosts; these functions of the server are
        # what the sub-commands add_vhost, set_permissions and delete_vhost call.
        script = f"""
            All = <<".*">>, Who = <<"tests">>,
            [begin
                rabbit_vhost:add(Name, Who),
                rabbit_auth_backend_internal:set_permissions(
                    {_binary(self.user)}, Name, All, All, All, Who)
             end || Name <- [{_binaries(create)}]],
            [rabbit_vhost:delete(Name, Who) || Name <- [{_binaries(delete)}]],
            done.
        """
        # In a session of its own: Ctrl-C reaches the tests, and not what tidies up after them.
        process = subprocess.Popen(
            [*self.command, "eval", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=60)
        except BaseException:
            process.communicate(timeout=60)  # What is being made cannot be removed yet.
            raise
        if process.returncode or stdout.strip() != "done":
            said = f"{stdout.strip()}\n{stderr.strip()}".strip().partition("\n")[0]
            raise AssertionError(f"{self.command[0]} failed with {process.returncode}: {said}")


class HttpVhosts:
    """By the management plug-in's HTTP interface."""

    def __init__(self, url: str, user: str) -> None:
        """Take the interface's URL (with its user and password) and the tests' user."""
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        self.base = f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}/api"
        login = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
        self.headers = {
            "Authorization": "Basic " + base64.b64encode(login.encode()).decode(),
            "Content-Type": "application/json",
        }
        self.user = user

    def change(self, create: list[str], delete: list[str]) -> None:
        """Do it one by one; raises urllib's error."""
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        for name in create:
            self._call("PUT", f"vhosts/{name}", {})
            self._call("PUT", f"permissions/{name}/{quote(self.user, safe='')}", rights)
        for name in delete:
            try:
                self._call("DELETE", f"vhosts/{name}")
            except urllib.error.HTTPError as error:
                if error.code != 404:  # It was never made, or is gone already.
                    raise

    def _call(self, method: str, path: str, content: dict[str, str] | None = None) -> None:
        request = urllib.request.Request(
            f"{self.base}/{path}",
            data=None if content is None else json.dumps(content).encode(),
            headers=self.headers,
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()


class VhostPool:
    """Hands out fresh virtual hosts; makes some ahead and deletes the used ones along with it.

    It is a context manager, which deletes them all at its end.
    """

    def __init__(self, vhosts: Vhosts, url: str, batch: int = 1) -> None:
        """Take who makes them, the broker URL to put their names into, and how many to make."""
        self.vhosts = vhosts
        self.batch = batch
        parts = urlsplit(url)
        self._base = f"{parts.scheme}://{parts.netloc}/"
        self._ready: list[str] = []
        self._used: list[str] = []
        #: All that may exist, whether they are ready, taken or used.
        self._made: set[str] = set()

    def take(self) -> str:
        """Return the broker URL of a virtual host that was never used."""
        if not self._ready:
            names = [f"toolbox-test-{uuid.uuid4().hex}" for _ in range(self.batch)]
            self._made.update(names)  # Before they are: it may be interrupted on the way.
            self.vhosts.change(names, self._used)
            self._made.difference_update(self._used)
            self._ready, self._used = names, []
        return self._base + self._ready.pop()

    def give_back(self, url: str) -> None:
        """Have a virtual host deleted, at the next :meth:`take` or at the end."""
        self._used.append(urlsplit(url).path.lstrip("/"))

    def close(self) -> None:
        """Delete all that it made, given back or not."""
        self._ready, self._used = [], []
        if self._made:
            self.vhosts.change([], sorted(self._made))
            self._made.clear()

    def __enter__(self) -> VhostPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def vhosts_for(url: str) -> Vhosts:
    """Return who can make virtual hosts on this broker.

    TEST_RABBITMQ_MANAGEMENT_URL names the HTTP interface, TEST_RABBITMQ_CTL the command line of
    rabbitmqctl (such as ``docker exec broker rabbitmqctl``); default: the rabbitmqctl of this
    machine.

    Raises:
        MissingProgram: neither is there.
    """
    user = unquote(urlsplit(url).username or "guest")
    if management := os.environ.get("TEST_RABBITMQ_MANAGEMENT_URL"):
        return HttpVhosts(management, user)
    if control := os.environ.get("TEST_RABBITMQ_CTL"):
        return ControlVhosts(shlex.split(control), user)
    program = find_program("rabbitmqctl")
    if program is None:
        raise MissingProgram(
            "no rabbitmqctl here to make virtual hosts: name the management interface by"
            " TEST_RABBITMQ_MANAGEMENT_URL, or the command by TEST_RABBITMQ_CTL"
        )
    return ControlVhosts([program], user)


def connect_once(url: str) -> None:
    """Connect and disconnect; raises amqp's error or OSError where that is not possible."""
    parts = urlsplit(url)
    # Not by kombu's Connection, which waits for two seconds and tries again.
    connection = amqp.Connection(
        host=f"{parts.hostname}:{parts.port or 5672}",
        userid=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        virtual_host=unquote(parts.path[1:]) or "/",
        connect_timeout=5,
        read_timeout=10,
    )
    try:
        connection.connect()
    finally:
        connection.close()


def check_rabbitmq(url: str) -> None:
    """Make a virtual host, connect to it and delete it; raises where that is not possible."""
    connect_once(url)  # Cheap, and fails first.
    with VhostPool(vhosts_for(url), url) as pool:
        connect_once(pool.take())


def _binary(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'<<"{escaped}"/utf8>>'


def _binaries(texts: list[str]) -> str:
    return ", ".join(_binary(text) for text in texts)


class PrivateRabbitMQ(Server):
    """A RabbitMQ server, with an Erlang port mapper of its own beside it."""

    name = "rabbitmq"
    variable = "TEST_RABBITMQ_URL"
    program = "rabbitmq-server"
    # Debian's wrapper in /usr/sbin refuses ordinary users and always uses the system's data.
    folders = ("/usr/lib/rabbitmq/bin", "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin")
    not_ready = (OSError, amqp.AMQPError)

    def __init__(self, plugins: tuple[str, ...] = ()) -> None:
        """Take the names of plug-ins to switch on."""
        super().__init__()
        self.plugins = plugins
        self.management_port = free_port()
        self.distribution_port = free_port()
        self.mapper_port = free_port()
        self.node = f"toolbox{self.port}@localhost"
        # Without its own, rabbitmq-server starts one for the machine, which stays for ever.
        self._mapper: Process | None = None
        self._url: str | None = None

    @property
    def root_url(self) -> str:
        """Where the first virtual host is."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def url(self) -> str:
        return self._url or self.root_url

    @property
    def management_url(self) -> str:
        """The HTTP interface, where the plug-in rabbitmq_management is on."""
        return f"http://guest:guest@127.0.0.1:{self.management_port}"

    @property
    def control(self) -> list[str]:
        """The command line of rabbitmqctl for this server."""
        names = ("HOME", "ERL_EPMD_PORT", "ERL_EPMD_ADDRESS")
        settings = [
            f"{name}={value}" for name, value in self.environment().items() if name in names
        ]
        return ["/usr/bin/env", *settings, self.path("rabbitmqctl"), "--node", self.node]

    def variables(self) -> dict[str, str]:
        return {
            self.variable: self.url,
            "TEST_RABBITMQ_CTL": shlex.join(self.control),
            "TEST_RABBITMQ_MANAGEMENT_URL": "",
        }

    def use_fresh_vhost(self) -> None:
        """Point :attr:`url` at a new, empty virtual host."""
        pool = VhostPool(ControlVhosts(self.control, "guest"), self.root_url)
        self._url = pool.take()

    def alarm(self, on: bool) -> None:
        """Let it have no memory left for messages, or all of it again."""
        share = "0.00001" if on else "0.6"
        done = subprocess.run(
            [*self.control, "set_vm_memory_high_watermark", share],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr

    def environment(self) -> dict[str, str]:
        here = str(self.directory)
        return {
            "HOME": here,  # Erlang keeps its cookie there.
            "ERL_EPMD_PORT": str(self.mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_MNESIA_BASE": f"{here}/data",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{here}/pid",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{here}/rabbitmq-env.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/plugins",
        }

    def prepare(self) -> None:
        self.directory.joinpath("plugins").write_text(f"[{','.join(self.plugins)}].\n")
        self.directory.joinpath("rabbitmq-env.conf").touch()
        lines = ["disk_free_limit.absolute = 50MB"]
        if "rabbitmq_management" in self.plugins:
            lines += [
                "management.tcp.ip = 127.0.0.1",
                f"management.tcp.port = {self.management_port}",
            ]
        self.directory.joinpath("rabbitmq.conf").write_text("\n".join(lines) + "\n")
        mapper = find_program("epmd", *ERLANG_FOLDERS)
        if mapper is None:
            raise MissingProgram("rabbitmq: no program epmd here; it belongs to Erlang")
        self._mapper = Process(
            [mapper, "-port", str(self.mapper_port), "-address", "127.0.0.1"],
            self.directory / "epmd.log",
        ).start()

    def command(self) -> list[str]:
        return [self.path()]

    def ask(self) -> None:
        connect_once(self.root_url)

    def close(self) -> None:
        try:
            super().close()
        finally:
            if self._mapper is not None:
                self._mapper.stop()
