"""Which kind of broker a URL names, and which transport of the toolbox serves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError

#: The toolbox's transport for each scheme of a broker URL. On Redis all copies of a publish are
#: one step; on all three no wait is without end. kombu's own give none of it.
TRANSPORTS = {
    "amqp": "toolbox-amqp",
    "pyamqp": "toolbox-amqp",
    "amqps": "toolbox-amqps",
    "redis": "toolbox-redis",
    "rediss": "toolbox-rediss",
    "sentinel": "toolbox-sentinel",
    "sqs": "toolbox-sqs",
}


def broker_kind(broker_url: Any, broker_transport: Any = None) -> str:
    """``amqp``, ``sqs``, ``redis``, ``embedded``, or the URL's own scheme."""
    url = broker_url[0] if isinstance(broker_url, list | tuple) and broker_url else broker_url
    scheme = str(broker_transport or url or "amqp").split(":", 1)[0].split("+", 1)[0].lower()
    scheme = scheme.removeprefix("toolbox-")
    if scheme in {"amqp", "amqps", "pyamqp", "librabbitmq"}:
        return "amqp"
    if scheme in {"redis", "rediss", "sentinel"}:
        return "redis"
    return scheme


def transport_of(broker_url: Any, settings: Mapping[str, Any]) -> str | None:
    """The toolbox's transport for all URLs of the broker, or None where kombu's own will do."""
    found = set()
    for name in ("broker_read_url", "broker_write_url"):
        url = settings.get(name) or broker_url
        first = url[0] if isinstance(url, list | tuple) and url else url
        scheme = str(first).partition(":")[0].lower()
        found.add(TRANSPORTS.get(scheme))
    return found.pop() if len(found) == 1 else None


def require_same_broker(conf: Any) -> None:
    """Refuse an app whose broker is of another kind than that of its ``Config``.

    Celery lets ``Celery(broker=...)`` and ``CELERY_BROKER_URL`` win over it without a word.

    Args:
        conf: the app's configuration, as Celery shows it.

    Raises:
        ConfigError: the broker is another.
    """
    chosen = conf.broker_transport or None
    if chosen and not str(chosen).startswith("toolbox-"):
        return  # the user's own
    urls = {name: getattr(conf, name) for name in ("broker_read_url", "broker_write_url")}
    if transport_of(conf.broker_url, urls) != chosen:
        kinds = " and ".join(sorted({broker_kind(url) for url in urls.values()}))
        raise ConfigError(
            f"the app's broker is {kinds}, but its settings were made for another one: "
            "Celery(broker=...) or CELERY_BROKER_URL has taken the place of Config's broker_url."
        )


def number_of_hosts(*urls: Any) -> int:
    """How many URLs the longest of these lists of a broker has; kombu takes ``;`` as well."""
    lists = (url if isinstance(url, list | tuple) else str(url or "").split(";") for url in urls)
    return max(map(len, lists), default=1)
