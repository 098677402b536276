"""Waits between attempts, which grow and are never alike in two processes."""

from __future__ import annotations

import random


class Backoff:
    """Waits that grow from ``first`` to ``longest`` seconds, each by chance down to its half.

    What failed for many processes at once would fail again if all of them tried again at once.

    Args:
        first: the longest first wait, in seconds.
        longest: the longest of all.
        factor: how many times as long the next wait may be.
    """

    def __init__(self, first: float, longest: float, factor: float = 2.0) -> None:
        self._first = first
        self._longest = longest
        self._factor = factor
        self._next = first

    @property
    def has_failed(self) -> bool:
        """Whether an attempt has failed since the last :meth:`reset`."""
        return self._next > self._first

    def next(self) -> float:
        """Return the seconds to wait before the next attempt."""
        wait, self._next = self._next, min(self._next * self._factor, self._longest)
        return random.uniform(wait / 2, wait)  # noqa: S311  # nothing is secret about it

    def reset(self) -> None:
        """Let the next failure be a first one again."""
        self._next = self._first
