"""Names of queues on Amazon SQS, which takes fewer of them than others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import ConfigError

#: The longest name that Amazon SQS takes, prefix and ``.fifo`` included.
SQS_NAME_LENGTH = 80


def sqs_name(name: str, prefix: str = "") -> str:
    """The name that kombu gives the queue ``name`` on Amazon SQS: dots become dashes."""
    stem, fifo = (name[:-5], ".fifo") if name.endswith(".fifo") else (name, "")
    return re.sub(r"[^\w-]", lambda m: "-" if m[0] == "." else "_", prefix + stem) + fifo


def require_distinct(names: Iterable[str], prefix: str) -> None:
    """Refuse names that are too long for SQS, and two that are one there.

    Raises:
        ConfigError: names the queues.
    """
    seen: dict[str, str] = {}
    for name in names:
        real = sqs_name(name, prefix)
        if len(real) > SQS_NAME_LENGTH:
            raise ConfigError(
                f"queue {name!r}: Amazon SQS takes {SQS_NAME_LENGTH} characters with the prefix "
                f"{prefix!r}; this has {len(real)}."
            )
        if seen.setdefault(real, name) != name:
            raise ConfigError(f"queues {seen[real]!r} and {name!r} are both {real!r} on SQS.")


def is_listed(name: str, predefined: Mapping[str, Any]) -> bool:
    """Whether kombu finds the queue ``name`` in the transport option ``predefined_queues``."""
    return sqs_name(name) in predefined


def require_listed(names: Iterable[str], predefined: Mapping[str, Any], prefix: str) -> None:
    """Refuse ``predefined_queues`` that lack a queue, or that kombu would look for by other names.

    Raises:
        ConfigError: names the queues and the remedy.
    """
    if prefix:
        raise ConfigError(
            "broker_transport_options: with predefined_queues, acknowledgements fail under a "
            "queue_name_prefix: drop it, or write it into the queues' names."
        )
    missing = [sqs_name(name) for name in names if not is_listed(name, predefined)]
    if missing:
        raise ConfigError(
            f"broker_transport_options: predefined_queues lacks {', '.join(missing)}; list every "
            f"queue, the monitor queue too."
        )
