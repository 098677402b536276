"""Names of queues: which are taken, and how they travel."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ..errors import ConfigError

#: Celery's name for the queue of tasks that no other queue wants.
DEFAULT_QUEUE = "celery"
#: Where Celery's delayed delivery on quorum queues takes messages in (kombu's level names).
DELAY_EXCHANGE_PREFIX = "celery_delayed_"
#: The longest name of a queue, in bytes: an AMQP routing key ends at 255 of them, and delayed
#: delivery takes 56.
MAX_QUEUE_NAME = 199
_DELAY_KEY_PREFIX = re.compile(r"^(?:[01]\.){28}")
QUEUE_TYPES = ("classic", "quorum")


def is_monitored(exchange: str, exchange_name: str) -> bool:
    """Whether a publish to ``exchange`` reaches the monitor queue by the broker's own bindings."""
    return exchange == exchange_name or exchange.startswith(DELAY_EXCHANGE_PREFIX)


def plain_routing_key(routing_key: str) -> str:
    """``routing_key`` without the digits that delayed delivery puts before it."""
    return _DELAY_KEY_PREFIX.sub("", routing_key, count=1)


def validate_queues(names: Any, *, monitor: str, queue_type: str) -> None:
    """Refuse queue names that cannot work on any broker, saying which and why.

    Args:
        names: what the user gave as ``queues``.
        monitor: the name of the monitor queue.
        queue_type: ``classic`` or ``quorum``.

    Raises:
        ConfigError: names the queue and the remedy.
    """
    if isinstance(names, (str, bytes)) or not isinstance(names, (list, tuple, set, frozenset)):
        raise ConfigError(f"queues must be a list of queue names, not {names!r}.")
    if not names:
        raise ConfigError(
            "queues is empty: name every queue that this process consumes from or publishes to, "
            'as in Config(queues=["export"]).'
        )
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"queues must be a list of strings; {name!r} is not one.")
        if not name.strip() or name != name.strip():
            raise ConfigError(f"queues holds an empty name or one with outer blanks: {name!r}.")
        if "*" in name or "#" in name:
            raise ConfigError(f"queue {name!r}: '*' and '#' are wildcards of the topic exchange.")
        if len(name.encode()) > MAX_QUEUE_NAME:
            raise ConfigError(f"queue {name[:40]!r}...: longer than {MAX_QUEUE_NAME} bytes.")
        if name == monitor:
            continue
        if name.startswith((DELAY_EXCHANGE_PREFIX, "amq.")):
            raise ConfigError(f"queue {name!r}: names that begin so belong to Celery or RabbitMQ.")
    if queue_type == "quorum":
        _refuse_suffixes(names)


def _refuse_suffixes(names: Iterable[str]) -> None:
    for short in names:
        for long in names:
            if long.endswith("." + short):
                raise ConfigError(
                    f"queues {short!r} and {long!r}: on quorum queues Celery's delayed delivery "
                    f"binds '#.{short}', so a task for {long!r} would run twice. Rename one."
                )
