"""What can be wrong, each with what to do."""

from __future__ import annotations


class OrderTrackerError(Exception):
    """The root of this application's errors."""


class SettingError(OrderTrackerError):
    """An environment variable or option cannot be used; names it and the remedy."""


class NotInitialisedError(OrderTrackerError):
    """The database has no tables yet."""


class BrokerAwayError(OrderTrackerError):
    """The broker does not take a message."""


class RequestError(OrderTrackerError):
    """A request that cannot be answered.

    Args:
        message: what is wrong and what to do.
        status: the HTTP status, 400 to 499.
        field: which part of the request it is about.
    """

    def __init__(self, message: str, status: int = 400, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.field = field
