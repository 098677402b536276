"""Which broker a URL, an app or a connection leads to, by which transport of the toolbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .amqp.broker import AmqpBroker
from .broker import Broker
from .embedded.broker import EmbeddedBroker
from .redis.broker import RedisBroker
from .sqs.broker import SqsBroker

#: The brokers that the toolbox knows; their names are those of kombu's drivers as well.
BROKERS: tuple[Broker, ...] = (
    AmqpBroker("amqp"),
    RedisBroker("redis"),
    SqsBroker("sqs"),
    EmbeddedBroker("embedded"),
)
_BY_NAME = {broker.name: broker for broker in BROKERS}
_BY_SCHEME = {scheme: broker for broker in BROKERS for scheme in broker.transports}

#: The toolbox's transport for each scheme of a broker URL.
TRANSPORTS = {
    scheme: transport
    for broker in BROKERS
    for scheme, transport in broker.transports.items()
    if transport
}


def broker_of(broker_url: Any, broker_transport: Any = None) -> Broker:
    """The broker of a URL, or of the first of a list.

    Args:
        broker_url: Celery's setting of this name, or one of its like; Celery's default is AMQP.
        broker_transport: Celery's setting of this name, which wins.
    """
    url = broker_url[0] if isinstance(broker_url, list | tuple) and broker_url else broker_url
    scheme = str(broker_transport or url or "amqp").split(":", 1)[0].split("+", 1)[0].lower()
    scheme = scheme.removeprefix("toolbox-")
    return _BY_SCHEME.get(scheme) or Broker(scheme)


def broker_of_app(app: Any) -> Broker:
    """The broker that an app consumes from."""
    conf = app.conf
    return broker_of(conf.broker_read_url or conf.broker_url, conf.broker_transport)


def broker_of_connection(connection: Any) -> Broker:
    """The broker of a kombu connection, which need not be open, by the driver that it uses.

    A transport of the user's own tells nothing by its name.
    """
    name = connection.get_transport_cls().driver_type
    return _BY_NAME.get(name) or Broker(name)


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
        kinds = " and ".join(sorted({broker_of(url).name for url in urls.values()}))
        raise ConfigError(
            f"the app's broker is {kinds}, but its settings were made for another one: "
            "Celery(broker=...) or CELERY_BROKER_URL has taken the place of Config's broker_url."
        )


def number_of_hosts(*urls: Any) -> int:
    """How many URLs the longest of these lists of a broker has; kombu takes ``;`` as well."""
    lists = (url if isinstance(url, list | tuple) else str(url or "").split(";") for url in urls)
    return max(map(len, lists), default=1)
