"""How long to wait before the next attempt."""

from __future__ import annotations

import random

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
