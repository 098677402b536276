"""RabbitMQ's management interface, which alone tells a queue's bindings."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from kombu import Queue

#: Seconds for it to answer.
MANAGEMENT_TIMEOUT = 3.0


def management_url(connection: Any) -> str:
    """Return where a broker's management interface is by default; the password goes there too."""
    if connection.ssl:  # then it must not go in the clear
        return f"https://{connection.hostname}:15671"
    return f"http://{connection.hostname}:15672"


def bindings(connection: Any, queue: Queue, url: str | None) -> set[str] | None:
    """The keys that bind a queue to its exchange; None where the interface does not tell.

    Args:
        connection: whose host and user are asked, unless ``url`` names others.
        queue: which of them.
        url: where the interface is.
    """
    parts = urlsplit(url or management_url(connection))
    base = urlunsplit(
        (parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", "")
    )
    place = "/".join(
        quote(part, safe="")
        for part in (connection.virtual_host or "/", "e", queue.exchange.name, "q", queue.name)
    )
    request = urllib.request.Request(f"{base}/api/bindings/{place}")  # noqa: S310
    name = unquote(parts.username or "") or connection.userid or "guest"
    user = f"{name}:{unquote(parts.password or '') or connection.password or 'guest'}"
    request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=MANAGEMENT_TIMEOUT) as answer:  # noqa: S310
            return {binding["routing_key"] for binding in json.load(answer)}
    except (OSError, ValueError, KeyError, TypeError, urllib.error.URLError):
        return None
