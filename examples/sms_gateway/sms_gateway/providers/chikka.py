"""Chikka: texts come as forms, are sent as forms, and are known by the id that we give them."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from ..errors import CallerError, FieldError, SettingsError
from ..settings import Settings
from . import fields
from .base import Callback, Inbound, Outbound, Receipt, Sent
from .client import Answer, Client, raise_for

URL = "https://post.chikka.com/smsapi/request"
#: What a reply may cost the subscriber.
REQUEST_COSTS = ("FREE", "1", "2.50", "5", "10", "15")
STATES = {"SENT": "sent", "FAILED": "failed"}


@dataclass(frozen=True)
class Chikka:
    """The provider ``chikka``.

    Its environment: ``CHIKKA_CLIENT_ID``, ``CHIKKA_SECRET_KEY``, ``CHIKKA_SHORTCODE``;
    ``CHIKKA_REQUEST_COST``, what a reply costs the subscriber (default FREE); and
    ``CHIKKA_CALLBACK_TOKEN``: Chikka signs nothing, so where this is set the addresses that it
    posts to have to end with ``?token=`` and this.
    """

    url: str
    client_id: str
    secret_key: str = field(repr=False)
    shortcode: str
    request_cost: str
    callback_token: str | None = field(repr=False)
    region: str
    client: Client = field(repr=False)
    name: str = "chikka"
    recognises_repeats: bool = True

    @classmethod
    def from_environment(cls, settings: Settings, environ: Mapping[str, str]) -> Chikka:
        """Read and check the environment; raises SettingsError."""
        url = settings.provider_url or URL
        if urlsplit(url).path in ("", "/"):
            url = url.rstrip("/") + urlsplit(URL).path
        request_cost = environ.get("CHIKKA_REQUEST_COST") or "FREE"
        if request_cost not in REQUEST_COSTS:
            raise SettingsError(
                f"CHIKKA_REQUEST_COST is {request_cost!r}: use one of {', '.join(REQUEST_COSTS)}."
            )
        return cls(
            url=url,
            client_id=environ.get("CHIKKA_CLIENT_ID", ""),
            secret_key=environ.get("CHIKKA_SECRET_KEY", ""),
            shortcode=environ.get("CHIKKA_SHORTCODE", ""),
            request_cost=request_cost,
            callback_token=environ.get("CHIKKA_CALLBACK_TOKEN") or None,
            region=settings.region,
            client=Client(settings.send_timeout),
        )

    def check(self) -> None:
        """Raise SettingsError where Chikka itself is to be called without credentials."""
        if urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1"):
            return  # the simulator takes all
        for name, value in (
            ("CHIKKA_CLIENT_ID", self.client_id),
            ("CHIKKA_SECRET_KEY", self.secret_key),
            ("CHIKKA_SHORTCODE", self.shortcode),
        ):
            if not value:
                raise SettingsError(
                    f"{name} is not set: set it, or SMS_PROVIDER_URL=http://127.0.0.1:8001 for "
                    "the simulator."
                )

    def verify(self, request: Callback) -> None:
        """Compare the token in the address, where one is set."""
        if self.callback_token is not None:
            given = request.query.get("token", "")
            if not hmac.compare_digest(given.encode(), self.callback_token.encode()):
                raise CallerError("token: is missing or wrong")

    def parse_inbound(self, request: Callback) -> Inbound:
        """Read a text."""
        form = request.form
        fields.expect(form, "message_type", "incoming")
        return Inbound(
            mobile_number=fields.number(form, "mobile_number", self.region),
            shortcode=fields.shortcode(form),
            request_id=fields.required(form, "request_id"),
            message=fields.message(form, "message"),
            sent_at=fields.moment(form),
            posted=fields.posted(form),
        )

    def parse_receipt(self, request: Callback) -> Receipt:
        """Read a delivery receipt."""
        form = request.form
        fields.expect(form, "message_type", "outgoing")
        fields.shortcode(form)
        message_id = fields.required(form, "message_id")
        status = fields.required(form, "status").upper()
        if status not in STATES:
            raise FieldError("status", f"is {status[:40]!r}, not SENT or FAILED")
        return Receipt(
            message_id=message_id,
            provider_ref=None,
            state=STATES[status],
            credits_cost=fields.cost(form, "credits_cost"),
            at=fields.moment(form),
            error="FAILED, by its receipt" if status == "FAILED" else None,
            posted=fields.posted(form),
        )

    def send(self, message: Outbound) -> Sent:
        """Send a text that answers none."""
        return self._post(message, {"message_type": "SEND"})

    def reply(self, message: Outbound) -> Sent:
        """Send the reply to a subscriber's text."""
        more = {"message_type": "REPLY", "request_id": message.request_id or ""}
        return self._post(message, {**more, "request_cost": self.request_cost})

    def find(self, message: Outbound, since: datetime, known: set[str]) -> Sent | None:
        """Chikka knows a repetition by its message id: there is no need to look."""
        return None

    def _post(self, message: Outbound, more: Mapping[str, str]) -> Sent:
        form = {
            **more,
            "mobile_number": message.mobile_number.lstrip("+"),
            "shortcode": message.shortcode or self.shortcode,
            "message_id": message.message_id,
            "message": message.message,
            "client_id": self.client_id,
            "secret_key": self.secret_key,
        }
        answer = self.client.request("POST", self.url, form)
        raise_for(_with_status_of_body(answer))
        return Sent()


def _with_status_of_body(answer: Answer) -> Answer:
    """Chikka's status stands in the body as well; where they differ, the body is about the text."""
    status = answer.json().get("status")
    if isinstance(status, int) and 400 <= status < 600 and answer.status < 300:
        return Answer(status, answer.body, answer.retry_after)
    return answer
