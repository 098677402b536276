"""The configuration: a file in the format of SharQ Server, which environment variables override."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import SettingsError

#: Names the configuration file where none is given.
FILE_VARIABLE = "RLQ_CONFIG"
#: Section of the file, and how the names of its environment variables begin.
SECTIONS = {"sharq": "RLQ_SHARQ_", "sharq-server": "RLQ_SERVER_", "redis": "RLQ_REDIS_"}
_CONNECTIONS = ("tcp_sock", "unix_sock", "embedded")


def _setting(section: str, default: Any, least: int | None = None, secret: bool = False) -> Any:
    found = {"section": section, "least": least}
    return field(default=default, repr=not secret, metadata=found)


@dataclass(frozen=True)
class Settings:
    """All settings. Each is named ``section.name`` in the file: ``[redis] host`` is ``redis_host``.

    Those that SharQ Server has keep its names and meaning; the others are marked.
    """

    #: Milliseconds after which a job that was not finished expires.
    job_expire_interval: int = _setting("sharq", 60_000, 1)
    #: Milliseconds between two searches for expired jobs.
    job_requeue_interval: int = _setting("sharq", 1_000, 1)
    #: How often a job is requeued that names no limit; -1: for ever.
    default_job_requeue_limit: int = _setting("sharq", -1, -1)
    #: Whether this server looks for expired jobs.
    enable_requeue_script: bool = _setting("sharq", True)
    #: Most bytes of a payload's JSON text (ours).
    max_payload_bytes: int = _setting("sharq", 1_048_576, 1)
    #: How many dead jobs a queue type keeps, the newest (ours).
    dead_letter_limit: int = _setting("sharq", 100_000, 0)
    #: Milliseconds that a dispatched Celery task may wait for a worker (ours).
    dispatch_expire_interval: int = _setting("sharq", 3_600_000, 1)

    #: Address to listen on.
    host: str = _setting("sharq-server", "127.0.0.1")
    #: Port to listen on.
    port: int = _setting("sharq-server", 8080, 0)
    #: Server processes.
    workers: int = _setting("sharq-server", 1, 1)
    #: File of the access log; empty: none.
    accesslog: str = _setting("sharq-server", "")
    #: Most seconds of a long poll (ours); proxies often end a request after 60.
    max_wait: int = _setting("sharq-server", 60, 0)
    #: What clients have to send as ``Authorization: Bearer``; empty: nothing (ours).
    token: str = _setting("sharq-server", "", secret=True)

    #: Database number.
    redis_db: int = _setting("redis", 0, 0)
    #: How every key begins.
    redis_key_prefix: str = _setting("redis", "sharq_server")
    #: ``tcp_sock``, ``unix_sock``, or ``embedded`` (ours): a private redis-server in a folder.
    redis_conn_type: str = _setting("redis", "embedded")
    #: The socket, for ``unix_sock``.
    redis_unix_socket_path: str = _setting("redis", "/tmp/redis.sock")  # noqa: S108
    redis_host: str = _setting("redis", "127.0.0.1")
    redis_port: int = _setting("redis", 6379, 1)
    redis_username: str = _setting("redis", "")
    redis_password: str = _setting("redis", "", secret=True)
    #: Whether it is a Redis cluster.
    redis_clustered: bool = _setting("redis", False)
    #: Whether to use TLS (ours).
    redis_ssl: bool = _setting("redis", False)
    #: Seconds after which a store that does not answer counts as away (ours).
    redis_timeout: int = _setting("redis", 5, 1)
    #: Folder of the embedded redis-server (ours).
    redis_directory: str = _setting("redis", ".rate-limited-queue")

    def __post_init__(self) -> None:
        if self.redis_conn_type not in _CONNECTIONS:
            known = ", ".join(_CONNECTIONS)
            raise SettingsError(
                f"[redis] conn_type is {self.redis_conn_type!r}: use one of {known}."
            )
        for where, port in (("sharq-server", self.port), ("redis", self.redis_port)):
            if port > 65_535:
                raise SettingsError(f"[{where}] port is {port}: use 65535 or less.")
        prefix = self.redis_key_prefix
        if not prefix or not prefix.isprintable() or set(prefix) & set("{}*?[]\\ "):
            raise SettingsError(
                f"[redis] key_prefix is {prefix!r}: it must not be empty, nor hold blanks or any "
                "of {}*?[]\\, since the braces mark what stays together in a cluster."
            )
        if self.redis_clustered and self.redis_conn_type != "tcp_sock":
            raise SettingsError("[redis] clustered needs conn_type tcp_sock.")


def load(path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Args:
        path: the file; default the one that ``RLQ_CONFIG`` names, else none.
        environ: environment variables; default those of the process. ``RLQ_SHARQ_``,
            ``RLQ_SERVER_`` and ``RLQ_REDIS_``, and a setting's name in upper case, override it.

    Without a ``[redis]`` section or variables of it the store is embedded; with one, it is
    reached by TCP unless ``conn_type`` says otherwise.

    Raises:
        SettingsError: there is no such file, or a value is wrong.
    """
    environ = os.environ if environ is None else environ
    path = path or environ.get(FILE_VARIABLE) or None
    parser = configparser.ConfigParser(inline_comment_prefixes=(";",), interpolation=None)
    if path is not None:
        try:
            with open(path, encoding="utf-8") as file:
                parser.read_file(file)
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"The configuration file {path} cannot be read: {error}.") from None
        except configparser.ParsingError as error:
            # Its text has the lines themselves, which may hold a password.
            line = getattr(error, "lineno", None) or error.errors[0][0]
            raise SettingsError(
                f"The configuration file {path} cannot be parsed at line {line}: write"
                " [sections], and `name: value` or `name = value` below them."
            ) from None
        except configparser.Error as error:
            raise SettingsError(f"The configuration file cannot be parsed: {error}") from None
    found: dict[str, Any] = {}
    for one in fields(Settings):
        section = one.metadata["section"]
        name = one.name.removeprefix("redis_") if section == "redis" else one.name
        variable = SECTIONS[section] + name.upper()
        if variable in environ:
            raw, where = environ[variable].strip(), f"The environment variable {variable}"
        elif parser.has_option(section, name):
            raw, where = parser.get(section, name).strip(), f"{path}: [{section}] {name}"
        else:
            continue
        found[one.name] = _parse(raw, one.default, one.metadata["least"], where)
    if "redis_conn_type" not in found and any(
        name in found for name in ("redis_host", "redis_port", "redis_clustered")
    ):
        found["redis_conn_type"] = "tcp_sock"
    return Settings(**found)


def _parse(raw: str, default: Any, least: int | None, where: str) -> Any:
    if isinstance(default, bool):
        known = configparser.ConfigParser.BOOLEAN_STATES
        if raw.lower() not in known:
            raise SettingsError(f"{where} is {raw!r}: use true or false.")
        return known[raw.lower()]
    if isinstance(default, int):
        try:
            value = int(raw)
        except ValueError:
            raise SettingsError(f"{where} is {raw!r}: use a whole number.") from None
        if least is not None and value < least:
            raise SettingsError(f"{where} is {value}: use {least} or more.")
        return value
    return raw
