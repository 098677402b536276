"""What a provider is to the gateway, and the values that pass between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from typing import Protocol

from ..optout import Request


@dataclass(frozen=True)
class Callback:
    """A request that claims to come from the provider."""

    #: Gives the address as the provider wrote it, query included.
    url: Callable[[], str]
    #: The first value of each field; werkzeug's MultiDict, where there may be more of them.
    form: Mapping[str, str]
    query: Mapping[str, str]
    #: Names in any case.
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Inbound:
    """A text from a subscriber."""

    request_id: str
    #: In the form of E.164.
    mobile_number: str
    shortcode: str
    message: str
    #: When the provider says it was sent; None where it does not say.
    sent_at: datetime | None
    #: What was posted, as it came.
    posted: Mapping[str, str]
    #: When the gateway was asked to take it.
    received_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    #: What the provider took it for, and has answered itself.
    opt_out: Request | None = None


@dataclass(frozen=True)
class Receipt:
    """What became of a text of ours."""

    #: ``queued``, ``sent``, ``delivered`` or ``failed``.
    state: str
    #: Our id, where the provider told it.
    message_id: str | None
    #: The provider's id, where it has one.
    provider_ref: str | None
    at: datetime
    credits_cost: Decimal | None
    #: Why it failed, in the provider's words.
    error: str | None
    posted: Mapping[str, str]
    #: Whether it failed since the subscriber has told the provider to stop.
    is_opted_out: bool = False


@dataclass(frozen=True)
class Outbound:
    """A text to send."""

    #: 32 characters, fixed before the first attempt.
    message_id: str
    #: In the form of E.164.
    mobile_number: str
    #: The number that the subscriber texted to; None for a broadcast.
    shortcode: str | None
    message: str
    #: The text that it answers; None for a broadcast.
    request_id: str | None


@dataclass(frozen=True)
class Sent:
    """The provider took a text."""

    #: What the provider calls it, where that is not the message id.
    provider_ref: str | None = None


class Provider(Protocol):
    """A provider of SMS. Safe to use from several threads.

    ``send`` and ``reply`` raise :class:`~..errors.RejectedError` where the provider refuses the
    text for good (:class:`~..errors.OptedOutError` where the subscriber has told it to stop), and
    :class:`~..errors.UnavailableError` where it may take it later.
    """

    @property
    def name(self) -> str:
        """As in ``SMS_PROVIDER``."""

    @property
    def recognises_repeats(self) -> bool:
        """Whether the provider knows a second request with the same message id for a repetition.

        Where it does not, ``find`` is asked before a text is sent again.
        """

    def check(self) -> None:
        """Raise SettingsError where a setting that sending needs is missing."""

    def verify(self, request: Callback) -> None:
        """Raise CallerError unless the request proves that the provider sent it."""

    def parse_inbound(self, request: Callback) -> Inbound:
        """Read a text; raises FieldError for a field that is missing or malformed."""

    def parse_receipt(self, request: Callback) -> Receipt:
        """Read a delivery receipt; raises FieldError likewise."""

    def send(self, message: Outbound) -> Sent:
        """Send a text that answers none."""

    def reply(self, message: Outbound) -> Sent:
        """Send the reply to a subscriber's text."""

    def find(self, message: Outbound, since: datetime, known: set[str]) -> Sent | None:
        """Look for a text that an earlier attempt may have sent.

        Args:
            message: the text.
            since: when the first attempt was begun.
            known: what the provider calls other texts of ours to this number.
        """
