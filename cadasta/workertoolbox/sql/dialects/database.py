"""A database to connect to: what its engine and its connections need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import URL, Engine

#: Seconds to wait for a connection to a database server.
CONNECT_TIMEOUT = 10
#: The execution option of a transaction that will write.
WILL_WRITE = "workertoolbox_immediate"


@dataclass(frozen=True)
class Database:
    """A database of which nothing but SQLAlchemy's name is known; subclasses know more.

    Attributes:
        name: the name under which URLs mean the same server.
    """

    name: str

    port: ClassVar[int] = 0
    #: Drivers whose sockets can be watched.
    watched_drivers: ClassVar[frozenset[str]] = frozenset(
        ("psycopg2", "psycopg", "pymysql", "mysqldb")
    )
    #: Whether it runs in this process, without a server.
    is_in_process: ClassVar[bool] = False
    #: Whether its drivers have options for keepalives, so that nobody need set them afterwards.
    keeps_alive: ClassVar[bool] = False
    #: Arguments of ``create_engine``.
    engine_options: ClassVar[Mapping[str, Any]] = {}

    def with_driver(self, url: URL) -> URL:
        """Return the URL with the driver that we take where it names none."""
        return url

    def is_memory(self, url: URL) -> bool:
        """Tell whether the URL is of a database that lives in this process's memory."""
        return False

    def address(self, url: URL) -> tuple[str, str, int, str]:
        """Return what is the same for two URLs of one database, whatever role and driver."""
        host = url.host or str(url.query.get("host", ""))
        port = url.port or self.port
        return self.name, host.lower(), port, url.database or url.username or ""

    def make_folder(self, url: URL) -> None:
        """Make the folder of a database that is a file."""

    def connect_arguments(self, url: URL, timeout: float | None) -> dict[str, Any]:
        """Return arguments of the driver's ``connect``.

        Args:
            timeout: seconds without an answer after which a connection is given up.
        """
        is_watched = url.get_driver_name() in self.watched_drivers
        return {"connect_timeout": CONNECT_TIMEOUT} if is_watched else {}

    def isolation_level(self, level: str) -> str:
        """Return the level that the database has for this one."""
        return level

    def prepare(self, engine: Engine, autocommits: bool) -> None:
        """Prepare the connections of a new engine."""

    def connected(self, connection: Any) -> None:
        """Prepare a driver's connection after its handshake, where it is watched."""

    def unreachable(self, driver: Any, text: str) -> Exception:
        """Return the driver's error for a server that cannot be reached."""
        error: Exception = driver.OperationalError(2003, text)
        return error
