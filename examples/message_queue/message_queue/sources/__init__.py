"""How messages are taken from each kind of broker."""

from __future__ import annotations

from typing import Any

from ..application import driver_type
from .base import Delivery as Delivery
from .base import Receive, Source


def make_source(app: Any, receive: Receive) -> Source:
    """The source for the broker of ``app``; ``receive`` gets what it delivers."""
    kind = driver_type(app)
    if kind == "amqp":
        from .amqp import AmqpSource

        return AmqpSource(app, receive)
    if kind == "redis":
        from .redis import RedisSource  # an optional package

        return RedisSource(app, receive)
    if kind == "sqs":
        from .sqs import SqsSource  # an optional package

        return SqsSource(app, receive)
    from .virtual import VirtualSource

    return VirtualSource(app, receive)
