"""Servers of our own: an installed program on a free port, its data in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import sys
import tempfile
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, TypeVar

import psycopg2
import pymysql
import redis

from .databases import create_database
from .process import Process, find_program, free_port

S = TypeVar("S", bound="Server")


class MissingProgram(Exception):
    """A server cannot start, since its program is not installed."""


class Server(ABC):
    """A private server. Use it as a context manager, or call :meth:`close` at the end."""

    #: What messages and the temporary folder call it.
    name: ClassVar[str]
    #: The environment variable that tells the tests where it is.
    variable: ClassVar[str]
    #: The program to run and the folders (globs) to look in before PATH.
    program: ClassVar[str]
    folders: ClassVar[tuple[str, ...]] = ()
    #: Accounts, the first that exists is taken, for a server that refuses to run as root.
    accounts: ClassVar[tuple[str, ...]] = ()
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    #: What :meth:`ask` raises while the server starts.
    not_ready: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    #: Seconds until it must answer.
    ready_timeout: ClassVar[float] = 90.0

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"toolbox-{self.name}-"))
        self.port = free_port()
        self.account = self._account()
        if self.account:
            shutil.chown(self.directory, self.account)
        self.log = self.directory / "server.log"
        self._process: Process | None = None

    @classmethod
    def find(cls) -> str | None:
        """Return the path of the server's program, or None where it is not installed."""
        return find_program(cls.program, *cls.folders)

    @classmethod
    def path(cls, program: str | None = None) -> str:
        """Return the path of one of its programs.

        Raises:
            MissingProgram: it is not installed.
        """
        found = find_program(program or cls.program, *cls.folders)
        if found is None:
            raise MissingProgram(f"{cls.name}: no program {program or cls.program} here")
        return found

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients reach it, in the form that the tests use."""

    @abstractmethod
    def command(self) -> list[str]:
        """Program and arguments, to run in the foreground."""

    @abstractmethod
    def ask(self) -> None:
        """Do what shows that it is up; raises :attr:`not_ready` while it is not."""

    def variables(self) -> dict[str, str]:
        """Return the environment variables that tell the tests where it is."""
        return {self.variable: self.url}

    def environment(self) -> dict[str, str]:
        """Return the variables that the server itself needs."""
        return {}

    def prepare(self) -> None:  # noqa: B027 - not every server has something to prepare
        """Make what must be there before the first start."""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def launch(self) -> None:
        """Start it, without waiting until it answers."""
        if self._process is None:
            self.prepare()
            self._process = Process(
                self.command(),
                self.log,
                name=self.name,
                env=self.environment(),
                cwd=self.directory,
                user=self.account,
                stop_signal=self.stop_signal,
            )
        self._process.start()

    def wait_ready(self) -> None:
        """Wait until it answers."""
        assert self._process is not None
        self._process.wait_for(self.answers, self.ready_timeout, "its first answer")

    def answers(self) -> bool:
        """Whether it answers now."""
        try:
            self.ask()
        except self.not_ready:
            return False
        return True

    def start(self: S) -> S:
        """Start it (again), on the same port and data, and wait until it answers."""
        self.launch()
        self.wait_ready()
        return self

    def stop(self) -> None:
        """Stop it in good order; its data stays."""
        if self._process is not None:
            if self._process.running:
                self.thaw()
            self._process.stop(30.0)

    def freeze(self) -> None:
        """Let it stand still: it takes connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Stop it as a crash would; its data stays."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it and remove its data."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self: S) -> S:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _account(self) -> str | None:
        if os.geteuid() != 0:
            return None
        known = {entry.pw_name for entry in pwd.getpwall()}
        return next((account for account in self.accounts if account in known), None)

    def run(self, *command: str) -> None:
        """Run a program of the server to its end, as its account; raises AssertionError."""
        process = Process(
            command, self.directory / "prepare.log", cwd=self.directory, user=self.account
        )
        process.start()
        if process.wait(self.ready_timeout):
            raise AssertionError(f"{process.name} failed:\n{process.log_tail()}")


class PrivatePostgres(Server):
    """A PostgreSQL server whose account postgres needs no password."""

    name = "postgres"
    variable = "TEST_POSTGRES_URL"
    program = "postgres"
    folders = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/libexec/postgresql*")
    accounts = ("postgres", "nobody")
    stop_signal = signal.SIGINT  # Fast: SIGTERM would wait until all clients have gone.
    not_ready = (psycopg2.OperationalError,)
    _url: str | None = None

    @property
    def admin_url(self) -> str:
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def url(self) -> str:
        return self._url or self.admin_url

    def use_fresh_database(self) -> None:
        """Point :attr:`url` at a new, empty database."""
        self._url = create_database(self.admin_url)

    def prepare(self) -> None:
        self.run(
            *(self.path("initdb"), "--pgdata", "data", "--username", "postgres"),
            *("--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync"),
        )

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            "fsync": "off",  # The data need not outlive the machine, only the server.
            "max_connections": "200",
        }
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        return [self.path(), "-D", "data", *options]

    def ask(self) -> None:
        psycopg2.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", connect_timeout=5
        ).close()

    def kill(self) -> None:
        """Stop at once, without a checkpoint: the next start recovers from the log."""
        # SIGKILL would leave its children, which hold the data folder, behind.
        if self._process is not None and self._process.running:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()


class PrivateMariaDB(Server):
    """A MariaDB server whose account root needs no password."""

    name = "mariadb"
    variable = "TEST_MARIADB_URL"
    program = "mariadbd"
    accounts = ("mysql", "nobody")
    not_ready = (pymysql.OperationalError,)

    @property
    def url(self) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/"

    def prepare(self) -> None:
        self.run(
            *(self.path("mariadb-install-db"), "--no-defaults", f"--datadir={self.directory}/data"),
            *("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"),
        )

    def command(self) -> list[str]:
        return [
            *(self.path(), "--no-defaults", f"--datadir={self.directory}/data"),
            *("--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve"),
            *(f"--socket={self.directory}/socket", f"--pid-file={self.directory}/pid"),
            "--innodb-flush-log-at-trx-commit=0",
        ]

    def ask(self) -> None:
        pymysql.connect(host="127.0.0.1", port=self.port, user="root", connect_timeout=5).close()


class PrivateRedis(Server):
    """A Redis server that keeps its data in memory alone."""

    name = "redis"
    variable = "TEST_REDIS_URL"
    program = "redis-server"
    not_ready = (redis.RedisError,)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        return [
            *(self.path(), "--bind", "127.0.0.1", "--port", str(self.port)),
            *("--save", "", "--appendonly", "no", "--dir", str(self.directory)),
        ]

    def ask(self) -> None:
        with redis.Redis(host="127.0.0.1", port=self.port) as client:
            client.ping()


class MotoServer(Server):
    """Amazon's SQS, played by moto."""

    name = "sqs"
    variable = "TEST_SQS_ENDPOINT"
    program = sys.executable
    not_ready = (urllib.error.URLError, OSError)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def ask(self) -> None:
        with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=5) as answer:
            answer.read()
