"""How long to wait before the next attempt."""

from __future__ import annotations

import random
from typing import Any

SHORTEST = 0.1
LONGEST = 5.0


class Backoff:
    """Seconds between attempts: twice as long each time, up to 5, and never quite the same."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """It has worked."""
        self._seconds = SHORTEST

    def next(self) -> float:
        """Seconds to wait now."""
        seconds, self._seconds = self._seconds, min(self._seconds * 2, LONGEST)
        return random.uniform(seconds / 2, seconds)  # noqa: S311


#: What Amazon SQS says of a queue that somebody has deleted; the older API, and the newer one.
_MISSING = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")


def is_missing(error: BaseException) -> bool:
    """Whether Amazon SQS says that a queue is not there."""
    return _code_of(error) in _MISSING


def kind_of(error: BaseException) -> str:
    """What an error is, without its text, in which drivers repeat URLs with passwords."""
    code = _code_of(error)
    return f"{type(error).__name__} {code}" if code else type(error).__name__


def _code_of(error: BaseException) -> Any:
    response: Any = getattr(error, "response", None)  # Amazon's
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None
