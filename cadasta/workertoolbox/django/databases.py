"""Which of Django's databases has the ledger, and how a URL becomes one of them.

Django is imported inside the functions, since a settings module calls one of them; SQLAlchemy
is imported inside too: most processes of a project need none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..plain.urls import build_url, mask_url

if TYPE_CHECKING:
    from sqlalchemy import Engine

#: The app's label; and the alias in ``DATABASES`` of a ledger that is not in the default database.
LABEL = "workertoolbox"
DEFAULT = "default"

_ENGINES = {
    "postgresql": "django.db.backends.postgresql",
    "postgres": "django.db.backends.postgresql",
    "mysql": "django.db.backends.mysql",
    "mariadb": "django.db.backends.mysql",
    "sqlite": "django.db.backends.sqlite3",
}


def database_from_url(url: str) -> dict[str, Any]:
    """Return the entry of Django's ``DATABASES`` for the database that a URL names.

    Args:
        url: as in ``LEDGER_URL`` or ``result_backend``: an SQLAlchemy URL, with ``toolbox+`` or
            ``db+`` before it or not. What it has after a ``?`` becomes ``OPTIONS``.

    Raises:
        ConfigError: it is no URL, or of a database that Django or the ledger does not know.
    """
    # Only where the ledger has a database of its own is this called at each start.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    for prefix in ("toolbox+", "db+", "database+"):
        url = url.removeprefix(prefix)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(
            f"{mask_url(url)!r} is not a database URL: it should look like "
            "postgresql://user:password@host:5432/name."
        ) from None
    engine = _ENGINES.get(parsed.get_backend_name())
    if engine is None:
        raise ConfigError(
            f"{mask_url(url)!r}: the ledger is in PostgreSQL, MySQL, MariaDB or SQLite."
        )
    options = dict(parsed.query)
    hosts = options.pop("host", parsed.host or "")
    ports = options.pop("port", str(parsed.port or ""))
    entry: dict[str, Any] = {
        "ENGINE": engine,
        "NAME": parsed.database or "",
        "USER": parsed.username or "",
        "PASSWORD": parsed.password or "",
        # libpq takes lists with commas, and a folder for a socket.
        "HOST": hosts if isinstance(hosts, str) else ",".join(hosts),
        "PORT": ports if isinstance(ports, str) else ",".join(ports),
    }
    if engine.endswith("sqlite3"):
        entry = {"ENGINE": engine, "NAME": parsed.database or ":memory:"}
        options.clear()  # they are of Python's driver, by names that Django's backend lacks
    if options:
        entry["OPTIONS"] = options
    return entry


def ledger_alias() -> str:
    """Return the alias of the ledger's database: ``workertoolbox``, or the default one."""
    from django.db import connections

    return LABEL if LABEL in connections.settings else DEFAULT


def place_of(alias: str) -> str | None:
    """Return an SQLAlchemy URL, without role and password, of where one of the databases is.

    None where it is no database that could have a ledger.
    """
    from django.db import connections

    connection = connections[alias]
    settings = connection.settings_dict
    name = str(settings["NAME"] or "")
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    if connection.vendor not in ("postgresql", "mysql"):
        return None
    host = str(settings["HOST"] or "localhost")
    return build_url(connection.vendor, "", "", host, settings["PORT"] or "", name)


def make_django_engine(alias: str) -> Engine:
    """Return an SQLAlchemy engine that connects as Django does: with all of its ``OPTIONS``."""
    from django.db import connections

    from ..sql.engines import make_engine  # SQLAlchemy

    connection = connections[alias]
    driver = connection.Database.__name__.lower()
    url = {
        "postgresql": f"postgresql+{driver}://",
        "mysql": "mysql+mysqldb://",
        "sqlite": "sqlite://",
    }.get(connection.vendor)
    if url is None:
        raise ConfigError(
            f"DATABASES[{alias!r}] is {connection.display_name}: the ledger is in PostgreSQL, "
            "MySQL, MariaDB or SQLite."
        )

    def connect() -> Any:
        own = connections.create_connection(alias)
        own.ensure_connection()  # with the time zone and the role that Django sets
        own.set_autocommit(False)
        return own.connection

    return make_engine(url, timeout=None, creator=connect)
