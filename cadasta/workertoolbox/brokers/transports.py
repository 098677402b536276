"""What kombu has to know of the toolbox's transports: their names, and how to stay with one.

A connection that goes on to the next URL of its broker takes the transport that the scheme of that
URL names, which is kombu's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES

from .kinds import TRANSPORTS

#: By name, where the class is. It is imported with the first connection.
_CLASSES = {
    "embedded": "embedded.transport:Transport",
    "toolbox-amqp": "amqp.transport:Transport",
    "toolbox-amqps": "amqp.transport:SSLTransport",
    "toolbox-redis": "redis.transport:Transport",
    "toolbox-rediss": "redis.transport:SSLTransport",
    "toolbox-sentinel": "redis.transport:SentinelTransport",
    "toolbox-sqs": "sqs.transport:Transport",
}
#: kombu's ways to choose the next URL of a broker, its default first.
_STRATEGIES = ("round-robin", "shuffle")


def keeping_transport(strategy: Any) -> Any:
    """The ``broker_failover_strategy`` that asks ``strategy`` for the next URL.

    Args:
        strategy: the name of one of kombu's, a function of the URLs, or None for kombu's default.
    """
    if callable(strategy):
        return partial(_urls_of, strategy)
    # A name, where it can be one: ``celery inspect stats`` sends it as JSON.
    name = strategy or _STRATEGIES[0]
    return f"toolbox-{name}" if name in _STRATEGIES else strategy


def register() -> None:
    """Make kombu know transports and strategies by name; it forces these registries on us.

    May be called again.
    """
    for name, cls in _CLASSES.items():
        TRANSPORT_ALIASES.setdefault(name, f"{__package__}.{cls}")
        # What a connection's URL begins with where it is shown, or read by Flower.
        Connection.resolve_aliases.setdefault(name, name.removeprefix("toolbox-"))
    strategies = Connection.failover_strategies
    for name in _STRATEGIES:
        strategies.setdefault(f"toolbox-{name}", partial(_urls_of, strategies[name]))


def _urls_of(strategy: Callable[[list[str]], Iterable[str]], urls: list[str]) -> Iterator[str]:
    for url in strategy(urls):
        scheme, separator, rest = url.partition("://")
        yield f"{TRANSPORTS.get(scheme.lower(), scheme)}://{rest}" if separator else url
