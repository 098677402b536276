"""A database of one's own for a test, on a server that others use as well."""

from __future__ import annotations

import uuid
from contextlib import closing

import psycopg2
import pymysql
from sqlalchemy.engine import URL, make_url


def create_database(admin_url: str) -> str:
    """Create an empty database with a unique name and return its URL.

    Args:
        admin_url: an SQLAlchemy URL of an account that may create databases
            (``postgresql+psycopg2://`` or ``mysql+pymysql://``).
    """
    admin = make_url(admin_url)
    name = f"toolbox_test_{uuid.uuid4().hex}"
    if admin.get_backend_name() == "postgresql":
        _postgres(admin, f'CREATE DATABASE "{name}" TEMPLATE template0')
    else:
        _mariadb(admin, f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
    return admin.set(database=name).render_as_string(hide_password=False)


def drop_database(admin_url: str, url: str) -> None:
    """Drop a database that :func:`create_database` made, with whoever is still connected."""
    admin = make_url(admin_url)
    name = make_url(url).database or ""
    if not name.startswith("toolbox_test_"):
        raise ValueError(f"{name!r} is not a test's own database")
    if admin.get_backend_name() == "postgresql":
        _postgres(admin, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        return
    # A forgotten open transaction would block DROP for ever.
    others = _mariadb(admin, "SELECT id FROM information_schema.processlist WHERE db = %s", name)
    for (connection,) in others:
        try:
            _mariadb(admin, f"KILL {connection}")
        except pymysql.MySQLError:
            pass  # It went away by itself.
    _mariadb(admin, f"DROP DATABASE IF EXISTS `{name}`")


def check_databases(admin_url: str) -> None:
    """Create and drop a database; raises the driver's error where that is not possible."""
    drop_database(admin_url, create_database(admin_url))


def _postgres(admin: URL, statement: str) -> None:
    with closing(
        psycopg2.connect(
            host=admin.host,
            port=admin.port,
            user=admin.username,
            password=admin.password,
            dbname=admin.database or "postgres",
            connect_timeout=5,
        )
    ) as connection:
        connection.autocommit = True  # CREATE and DROP DATABASE refuse a transaction.
        with connection.cursor() as cursor:
            cursor.execute(statement)


def _mariadb(admin: URL, statement: str, *values: object) -> list[tuple[object, ...]]:
    with (
        closing(
            pymysql.connect(
                host=admin.host,
                port=admin.port or 3306,
                user=admin.username,
                password=admin.password or "",
                autocommit=True,
                connect_timeout=5,
            )
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement, values)
        return list(cursor.fetchall())
