"""TLS to Redis: a ``rediss://`` URL that names no certificate."""

from __future__ import annotations

import logging
import ssl
from typing import Any

logger = logging.getLogger(__name__)


def use_tls(client: Any) -> None:
    """Let a kombu connection use TLS; kombu knows by its own names of transports alone that it has.

    Without options of the URL or ``broker_use_ssl`` it works, as with kombu, and warns: the
    server's certificate is not verified then.
    """
    if client.ssl:
        return
    logger.warning(
        "rediss:// without TLS options: the server's certificate is not verified. Add "
        "'?ssl_cert_reqs=required' to the broker URL, or set broker_use_ssl."
    )
    client.ssl = {"ssl_cert_reqs": ssl.CERT_NONE}
