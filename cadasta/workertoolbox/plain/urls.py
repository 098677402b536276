"""URLs with passwords: how to build them of parts, and how to show them without."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

_SCHEME = r"[A-Za-z][A-Za-z0-9+.\-]*://"
# Up to the last @ of this URL, since a password may hold one unquoted: rather too much is
# hidden than too little.
_USER_INFO = re.compile(rf"({_SCHEME}[^\s:/@?#]*:)(?:(?!{_SCHEME})\S)*@")
_QUERY = re.compile(r"([?&;]\w*(?:password|passwd|pwd|secret|token)\w*=)[^&\s'\"]*", re.IGNORECASE)


def mask_url(text: str) -> str:
    """Return ``text`` with ``***`` for each password in a URL in it."""
    return _QUERY.sub(r"\1***", _USER_INFO.sub(r"\1***@", text))


class MaskedURL(str):
    """A URL whose ``repr`` shows no password, for ``celery report``, which shows any setting."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(mask_url(str(self)))


def build_url(driver: str, user: str, password: str, host: str, port: int | str, name: str) -> str:
    """Return a database URL of parts that may hold any character.

    :param driver: such as ``postgresql+psycopg2``.
    :param host: a host name, an IP address, or the folder of a Unix socket (begins with ``/``).
    :param port: 0 or "" for the driver's default.
    """
    login = quote(user, safe="")
    if password:
        login += ":" + quote(password, safe="")
    if login:
        login += "@"
    path = "/" + quote(name, safe="")
    if host.startswith("/"):
        query = {"host": host, "port": port} if port else {"host": host}
        return f"{driver}://{login}{path}?{urlencode(query)}"
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"{driver}://{login}{host}{f':{port}' if port else ''}{path}"


def database_url(result_backend: str) -> str | None:
    """Return the SQLAlchemy URL in a ``result_backend`` setting, or None if it is no SQL backend.

    ``db+postgresql://…``, ``database+…`` and ``toolbox+…`` are SQL backends.
    """
    prefix, plus, url = result_backend.partition("+")
    return url if plus and prefix in ("db", "database", "toolbox") else None
