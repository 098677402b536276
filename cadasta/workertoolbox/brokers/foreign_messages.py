"""Messages in a virtual transport's queue that no kombu has put there."""

from __future__ import annotations

import json
import logging
from typing import Any

from kombu.transport import virtual

logger = logging.getLogger(__name__)


def tolerate(channel: Any) -> None:
    """Let a channel hand out whatever its queue holds; one that is not virtual stays as it is."""
    if isinstance(channel, virtual.Channel):
        channel.Message = _tolerant(channel.Message)


def _tolerant(message_type: Any) -> Any:
    """A virtual transport's message that takes anything that a foreign client may have left."""

    class Message(message_type):
        def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
            try:
                super().__init__(payload, channel=channel, **options)
                if isinstance(self.delivery_info, dict):
                    return
            except Exception as exc:
                logger.debug("No message of kombu's form: %s", type(exc).__name__)
            # All of it becomes the body of a message that says nothing.
            tag = {"delivery_tag": payload["properties"]["delivery_tag"]}
            text = json.dumps(payload, default=repr)
            super().__init__({"body": text, "properties": tag}, channel=channel, **options)

    return Message
