"""Twilio: signed callbacks, and texts that only Twilio gives an id to.

Twilio does not know a repetition of ours. So each text names, as the address for its receipts, one
that holds our message id; and before a text is sent again that may have been taken, Twilio's list
of messages is asked for it.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import urllib3
from werkzeug.datastructures import MultiDict

from ..errors import CallerError, OptedOutError, SettingsError
from ..optout import Request
from ..settings import Settings
from . import fields
from .base import Callback, Inbound, Outbound, Receipt, Sent
from .client import Client, raise_for

URL = "https://api.twilio.com"
STATES = {
    "accepted": "queued",
    "scheduled": "queued",
    "queued": "queued",
    "sending": "queued",
    "sent": "sent",
    "delivered": "delivered",
    "read": "delivered",
    "undelivered": "failed",
    "failed": "failed",
    "canceled": "failed",
}
#: Seconds that Twilio's clock may differ from ours.
CLOCKS_DIFFER = 60
#: Twilio's number of the error that the recipient has texted STOP.
OPTED_OUT = "21610"
#: What Twilio says in ``OptOutType`` that a text was, where Advanced Opt-Out is on.
OPT_OUT_TYPES: dict[str, Request] = {"STOP": "stop", "START": "start", "HELP": "help"}


@dataclass(frozen=True)
class Twilio:
    """The provider ``twilio``.

    Its environment: ``TWILIO_ACCOUNT_SID``, ``TWILIO_AUTH_TOKEN``, which also proves who calls, and
    ``TWILIO_FROM``, the number that broadcasts come from. ``SMS_PUBLIC_URL`` has to be what Twilio
    calls this gateway: the signature is over it, and receipts go there.
    """

    url: str
    account_sid: str
    auth_token: str = field(repr=False)
    from_number: str
    public_url: str | None
    region: str
    client: Client = field(repr=False)
    name: str = "twilio"
    recognises_repeats: bool = False

    @classmethod
    def from_environment(cls, settings: Settings, environ: Mapping[str, str]) -> Twilio:
        """Read and check the environment; raises SettingsError."""
        found = {}
        for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"):
            found[name] = environ.get(name, "")
            if not found[name]:
                raise SettingsError(f"{name} is not set: SMS_PROVIDER=twilio needs it.")
        return cls(
            url=_messages_url(settings.provider_url or URL, found["TWILIO_ACCOUNT_SID"]),
            account_sid=found["TWILIO_ACCOUNT_SID"],
            auth_token=found["TWILIO_AUTH_TOKEN"],
            from_number=environ.get("TWILIO_FROM", ""),
            public_url=settings.public_url,
            region=settings.region,
            client=Client(settings.send_timeout),
        )

    def check(self) -> None:
        """Raise SettingsError where a setting that sending needs is missing."""
        if not self.from_number:
            raise SettingsError("TWILIO_FROM is not set: give the number that texts come from.")
        if not self.public_url:
            raise SettingsError(
                "SMS_PUBLIC_URL is not set: give the address that Twilio reaches this gateway by, "
                "such as https://sms.example.org. Receipts go there."
            )

    def verify(self, request: Callback) -> None:
        """Check ``X-Twilio-Signature``."""
        given = request.headers.get("X-Twilio-Signature", "")
        url = request.url()
        if self.public_url:
            parts = urlsplit(url)
            url = self.public_url + parts.path + (f"?{parts.query}" if parts.query else "")
        # Twilio signs the address with the port or without it, whatever it calls.
        expected = [signature(self.auth_token, one, request.form) for one in _with_ports(url)]
        if not any([hmac.compare_digest(given.encode(), one.encode()) for one in expected]):
            raise CallerError("X-Twilio-Signature: is missing or wrong")

    def parse_inbound(self, request: Callback) -> Inbound:
        """Read a text."""
        form = request.form
        return Inbound(
            mobile_number=fields.number(form, "From", self.region),
            shortcode=fields.required(form, "To", 32),
            message=fields.message(form, "Body"),
            request_id=fields.required(form, "MessageSid"),
            sent_at=None,
            posted=fields.posted(form),
            opt_out=OPT_OUT_TYPES.get(form.get("OptOutType", "").strip().upper()),
        )

    def parse_receipt(self, request: Callback) -> Receipt:
        """Read a delivery receipt. A status that Twilio may invent later changes nothing."""
        form = request.form
        reference = fields.required(form, "MessageSid", 64)
        status = fields.required(form, "MessageStatus").lower()
        state = STATES.get(status, "queued")
        return Receipt(
            message_id=request.query.get("message_id"),
            provider_ref=reference,
            state=state,
            credits_cost=None,
            at=datetime.now(timezone.utc),
            error=_error(form, status) if state == "failed" else None,
            posted=fields.posted(form),
            is_opted_out=state == "failed" and form.get("ErrorCode", "").strip() == OPTED_OUT,
        )

    def send(self, message: Outbound) -> Sent:
        """Send a text that answers none."""
        form = {
            "To": message.mobile_number,
            "From": message.shortcode or self.from_number,
            "Body": message.message,
        }
        if self.public_url:
            mark = f"?message_id={message.message_id}"
            form["StatusCallback"] = f"{self.public_url}/notification{mark}"
        answer = self.client.request("POST", self.url, form, self._authorization())
        if 400 <= answer.status < 500 and str(answer.json().get("code")) == OPTED_OUT:
            raise OptedOutError(answer.words)
        raise_for(answer)
        reference = answer.json().get("sid")
        return Sent(str(reference)[:64] if reference else None)

    def reply(self, message: Outbound) -> Sent:
        """Send the reply to a subscriber's text; for Twilio a text like any other."""
        return self.send(message)

    def find(self, message: Outbound, since: datetime, known: set[str]) -> Sent | None:
        """Look for the text in Twilio's list of what was sent to this number since then."""
        since -= timedelta(seconds=CLOCKS_DIFFER)
        query = {
            "To": message.mobile_number,
            "From": message.shortcode or self.from_number,
            "PageSize": "100",  # the newest; those that are not on their way yet have no DateSent
        }
        answer = self.client.request("GET", self.url, query, self._authorization())
        raise_for(answer)
        for item in answer.json().get("messages") or []:
            reference = str(item.get("sid"))
            if (
                item.get("body") == message.message
                and reference not in known
                and _created(item) >= since
            ):
                return Sent(reference)
        return None

    def _authorization(self) -> dict[str, str]:
        login = f"{self.account_sid}:{self.auth_token}"
        return dict(urllib3.make_headers(basic_auth=login))


def signature(auth_token: str, url: str, form: Mapping[str, str]) -> str:
    """Twilio's signature: HMAC-SHA1 over the URL and the fields, sorted by name, in base64.

    Of a field that is there more than once, each value counts once, in order.
    """
    signed = url
    for name in sorted(form):
        values = form.getlist(name) if isinstance(form, MultiDict) else [form[name]]
        signed += "".join(name + value for value in sorted(set(values)))
    digest = hmac.digest(auth_token.encode(), signed.encode(), "sha1")
    return base64.b64encode(digest).decode()


def _with_ports(url: str) -> tuple[str, ...]:
    """An address as it is, without its port, and with the one that its scheme has by default."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return (url,)
    host = parts.netloc.rpartition("@")[2]
    if not host:
        return (url,)
    without = parts.netloc if port is None else parts.netloc.rpartition(":")[0]
    usual = port or (443 if parts.scheme == "https" else 80)
    forms = (_join(parts, without), _join(parts, f"{without}:{usual}"))
    return (url, *(form for form in dict.fromkeys(forms) if form != url))


def _join(parts: SplitResult, netloc: str) -> str:
    return parts._replace(netloc=netloc).geturl()


def _messages_url(url: str, account_sid: str) -> str:
    if urlsplit(url).path not in ("", "/"):
        return url
    return f"{url.rstrip('/')}/2010-04-01/Accounts/{quote(account_sid)}/Messages.json"


def _error(form: Mapping[str, str], status: str) -> str:
    words = (status, form.get("ErrorCode", ""), form.get("ErrorMessage", ""))
    return " ".join(" ".join(words).replace("\0", "").split())[:500]


def _created(item: Mapping[str, Any]) -> datetime:
    try:
        return parsedate_to_datetime(str(item.get("date_created")))
    except ValueError:
        return datetime.max.replace(tzinfo=timezone.utc)  # unknown: it may be the one
