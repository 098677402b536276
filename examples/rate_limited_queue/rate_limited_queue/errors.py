"""The errors of this package."""

from __future__ import annotations


class RateLimitedQueueError(Exception):
    """Any error of this package."""


class SettingsError(RateLimitedQueueError):
    """The configuration is wrong; the message names the value, where it stands and the remedy."""


class InvalidField(RateLimitedQueueError, ValueError):
    """A caller's value is wrong.

    Args:
        field: the name of the value.
        problem: what the message says after the name.
    """

    def __init__(self, field: str, problem: str = "has an invalid value.") -> None:
        super().__init__(f"`{field}` {problem}")
        self.field = field
        self.problem = problem


class TooLarge(RateLimitedQueueError):
    """A payload, or a whole request, is larger than is allowed."""


class StoreUnavailable(RateLimitedQueueError):
    """Redis cannot be reached or did not answer; whether the call took effect is not known."""


class UnknownQueue(RateLimitedQueueError, LookupError):
    """The store knows nothing of a queue id: it has no job, and no limit to keep."""


class NotDue(RateLimitedQueueError):
    """A Celery task may not begin yet, or another run of it goes on: it waits, and has not failed.

    The ledger shows it as the reason of the state RETRY.
    """
