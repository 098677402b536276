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

from .kinds import BROKERS, TRANSPORTS

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


def stay_on(connection: Any, transport: Any) -> None:
    """Let one connection take another transport than its settings name, on each of its URLs.

    Args:
        connection: of kombu, not open yet. It is given a method ``shown_uri``, which tells where it
            is to, without the password, as the settings name it.
        transport: a name or a class, as kombu takes both.
    """
    named, switch = connection.transport_cls, connection.switch
    connection.transport_cls = transport

    def switch_and_stay(url: str) -> None:
        """Go on to the next URL of a list; kombu takes the transport that it names."""
        switch(url)
        connection.transport_cls = transport

    def shown_uri() -> str:
        connection.transport_cls = named
        try:
            return str(connection.as_uri())
        finally:
            connection.transport_cls = transport

    connection.switch = switch_and_stay
    connection.shown_uri = shown_uri


def register() -> None:
    """Make kombu know transports and strategies by name; it forces these registries on us.

    May be called again.
    """
    classes = [item for broker in BROKERS for item in broker.transport_classes.items()]
    for name, cls in classes:  # It is imported with the first connection.
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
