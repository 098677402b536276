"""Names: topics, their queues, and the form of a message in the broker."""

from __future__ import annotations

import re
from typing import Any

from .errors import TopicError

#: The task name of each message, as the ledger shows it.
MESSAGE = "message_queue.message"
#: Stands before a topic in the name of its queue, so that no client reaches another queue.
QUEUE_PREFIX = "mq."

_TOPIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


def check_topic(topic: str, on_sqs: bool = False) -> None:
    """Refuse a topic that can be no queue.

    Args:
        topic: the name that a client gave.
        on_sqs: the broker is Amazon SQS, where ``a.b`` and ``a-b`` would be one queue.

    Raises:
        TopicError: says what a name may be.
    """
    if not _TOPIC.fullmatch(topic):
        raise TopicError(
            f"topic {topic[:80]!r}: a name has 1 to 64 of the characters A-Z a-z 0-9 _ - . "
            "and begins with a letter or digit"
        )
    if on_sqs and "." in topic.removesuffix(".fifo"):
        raise TopicError(
            f"topic {topic!r}: on Amazon SQS a dot becomes a dash, so that two topics would be "
            "one queue; use _ or -"
        )


def queue_name(topic: str) -> str:
    """The name of the topic's queue."""
    return QUEUE_PREFIX + topic


def body_of(headers: Any, payload: Any) -> tuple[str, str]:
    """Id and body of a message that came from the broker.

    Raises:
        ValueError: it is no message of this package; says why.
    """
    if not isinstance(headers, dict) or headers.get("task") != MESSAGE:
        raise ValueError("it is no message of a topic")
    message_id = headers.get("id")
    if not isinstance(message_id, str) or not message_id:
        raise ValueError("it has no id")
    try:
        (body,), _, _ = payload
    except (TypeError, ValueError):
        raise ValueError("it has not one argument") from None
    if not isinstance(body, str):
        raise ValueError("its argument is no text")
    return message_id, body
