"""What can go wrong, by who has to act on it."""

from __future__ import annotations


class GatewayError(Exception):
    """Root of every error that the gateway raises by itself."""


class SettingsError(GatewayError, ValueError):
    """An environment variable or a keyword that cannot work; names it and the remedy."""


class FieldError(GatewayError, ValueError):
    """A field of a request that is missing or malformed."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class CallerError(GatewayError):
    """A request that does not prove that the provider sent it."""


class QueueUnavailableError(GatewayError):
    """The broker did not take a task."""


class RejectedError(GatewayError):
    """The provider refused a text for good; the message is in its own words."""


class OptedOutError(RejectedError):
    """The provider refused a text since the subscriber has told it to stop."""


class UnavailableError(GatewayError):
    """The provider did not take a text now: try again.

    Args:
        words: what happened.
        retry_after: the seconds that the provider asked to wait, or None.
        in_doubt: whether the provider may have sent the text all the same.
    """

    def __init__(
        self, words: str, *, retry_after: float | None = None, in_doubt: bool = True
    ) -> None:
        super().__init__(words)
        self.retry_after = retry_after
        self.in_doubt = in_doubt
