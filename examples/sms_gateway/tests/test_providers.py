"""Providers: what they post, and what their answers mean. The simulator plays them, by HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from sms_gateway.errors import (
    CallerError,
    FieldError,
    OptedOutError,
    RejectedError,
    SettingsError,
    UnavailableError,
)
from sms_gateway.local import Local, free_port
from sms_gateway.providers import Callback, Outbound, Provider, make_provider
from sms_gateway.providers.client import retry_after
from sms_gateway.providers.twilio import signature
from sms_gateway.settings import Settings
from sms_gateway.simulator.forms import chikka_receipt, chikka_text
from sms_gateway.tasks.envelope import pack_inbound, unpack_inbound
from werkzeug.datastructures import MultiDict

CHIKKA_TEXT = chikka_text("5048303030534D415254", "639181234567", "bord on")
CHIKKA_RECEIPT = chikka_receipt("0" * 32)
TWILIO = {
    "SMS_PROVIDER": "twilio",
    "TWILIO_ACCOUNT_SID": "AC1",
    "TWILIO_AUTH_TOKEN": "secret",
    "TWILIO_FROM": "+15005550006",
    "SMS_PUBLIC_URL": "https://sms.example.org",
}
MESSAGE = Outbound("a" * 32, "+639181234567", "2929", "Hello & good-bye é", "request")


def provider(**environ: str) -> Provider:
    return make_provider(Settings.from_environment(environ), environ)


def callback(form: Mapping[str, str], **more: Any) -> Callback:
    return Callback(
        **{"url": lambda: "http://here/", "query": {}, "headers": {}, "form": form, **more}
    )


def without(form: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in form.items() if key != name}


@pytest.mark.parametrize("name", CHIKKA_TEXT)
def test_chikka_names_the_field_that_a_text_lacks(name: str) -> None:
    with pytest.raises(FieldError, match=f"^{name}: is missing"):
        provider().parse_inbound(callback(without(CHIKKA_TEXT, name)))


@pytest.mark.parametrize("name", CHIKKA_RECEIPT)
def test_chikka_names_the_field_that_a_receipt_lacks(name: str) -> None:
    with pytest.raises(FieldError, match=f"^{name}: is missing"):
        provider().parse_receipt(callback(without(CHIKKA_RECEIPT, name)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("message_type", "outgoing"),
        ("mobile_number", "call me"),
        ("shortcode", "29x9"),
        ("request_id", ""),
        ("request_id", "x" * 129),
        ("request_id", "a\0b"),
        ("timestamp", "yesterday"),
        ("timestamp", "nan"),
        ("timestamp", "-1"),
        ("timestamp", "1e300"),
    ],
)
def test_chikka_names_the_field_that_is_malformed(name: str, value: str) -> None:
    with pytest.raises(FieldError, match=f"^{name}: "):
        provider().parse_inbound(callback({**CHIKKA_TEXT, name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "LOST"),
        ("credits_cost", "NaN"),
        ("credits_cost", "-1"),
        ("credits_cost", "x"),
        ("credits_cost", "999999.99999"),  # no column could hold it, rounded
    ],
)
def test_chikka_names_the_field_of_a_receipt_that_is_malformed(name: str, value: str) -> None:
    with pytest.raises(FieldError, match=f"^{name}: "):
        provider().parse_receipt(callback({**CHIKKA_RECEIPT, name: value}))


def test_a_text_may_be_empty_and_hold_anything() -> None:
    read = provider().parse_inbound(callback({**CHIKKA_TEXT, "message": "a\0b 😀"}))
    assert read.message == "a\N{REPLACEMENT CHARACTER}b 😀"
    assert provider().parse_inbound(callback({**CHIKKA_TEXT, "message": ""})).message == ""


def test_chikkas_token_is_compared_where_one_is_set() -> None:
    found = provider(CHIKKA_CALLBACK_TOKEN="hush")
    found.verify(callback({}, query={"token": "hush"}))
    for query in ({}, {"token": "wrong"}, {"token": "é"}):
        with pytest.raises(CallerError, match="token"):
            found.verify(callback({}, query=query))
    assert "hush" not in repr(found)


def test_chikka_itself_needs_credentials() -> None:
    with pytest.raises(SettingsError, match="CHIKKA_CLIENT_ID"):
        provider().check()
    provider(SMS_PROVIDER_URL="http://127.0.0.1:8001").check()


def test_twilios_signature_is_that_of_its_documentation() -> None:
    # The example of Twilio's page on security.
    form = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675309",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
    }
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    assert signature("12345", url, form) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_twilio_verifies_the_address_that_twilio_called() -> None:
    found = provider(**TWILIO)
    form = {"From": "+639181234567", "To": "+15005550006", "Body": "bord on", "MessageSid": "SM1"}
    right = signature("secret", "https://sms.example.org/message?x=1", form)

    def inside() -> str:
        return "http://127.0.0.1:8000/message?x=1"

    found.verify(callback(form, url=inside, headers={"X-Twilio-Signature": right}))
    for headers in ({}, {"X-Twilio-Signature": "wrong"}, {"X-Twilio-Signature": right + "é"}):
        with pytest.raises(CallerError, match="X-Twilio-Signature"):
            found.verify(callback(form, url=inside, headers=headers))
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("public_url", "signed_url", "is_right"),
    [
        ("https://sms.example.org", "https://sms.example.org:443", True),
        ("https://sms.example.org:443", "https://sms.example.org", True),
        ("https://sms.example.org:8443", "https://sms.example.org", True),
        ("https://sms.example.org:8443", "https://sms.example.org:8443", True),
        ("http://sms.example.org", "http://sms.example.org:80", True),
        ("https://me:hush@sms.example.org", "https://me:hush@sms.example.org:443", True),
        ("http://[::1]", "http://[::1]:80", True),
        ("https://sms.example.org", "https://sms.example.org:80", False),
        ("https://sms.example.org", "https://sms.example.org:8443", False),
        ("https://sms.example.org", "http://sms.example.org", False),
        ("https://sms.example.org", "https://sms.example.com:443", False),
    ],
)
def test_twilio_signs_with_the_port_or_without(
    public_url: str, signed_url: str, is_right: bool
) -> None:
    # As twilio.request_validator.RequestValidator has it, which was run on these beside this.
    found = provider(**{**TWILIO, "SMS_PUBLIC_URL": public_url})
    form = MultiDict([("B", "2"), ("A", "2"), ("A", "1"), ("A", "2")])
    signed = signature("secret", f"{signed_url}/message?x=1", {"A": "1A2", "B": "2"})
    headers = {"X-Twilio-Signature": signed}
    asked = callback(form, url=lambda: "http://127.0.0.1:8000/message?x=1", headers=headers)
    if is_right:
        found.verify(asked)
    else:
        with pytest.raises(CallerError):
            found.verify(asked)


@pytest.mark.parametrize("said", ["STOP", "stop ", "START", "HELP", "MAYBE", ""])
def test_twilio_tells_what_it_took_a_text_for(said: str) -> None:
    form = {"From": "+639181234567", "To": "+15005550006", "Body": "x", "MessageSid": "SM1"}
    read = provider(**TWILIO).parse_inbound(callback({**form, "OptOutType": said}))
    known = {"STOP": "stop", "stop ": "stop", "START": "start", "HELP": "help"}
    assert read.opt_out == known.get(said)
    assert unpack_inbound(json.loads(json.dumps(pack_inbound(read)))) == read
    queued_before = pack_inbound(read)
    del queued_before["opt_out"], queued_before["received_at"]  # by an older version
    assert unpack_inbound(queued_before).received_at >= read.received_at


@pytest.mark.parametrize("name", ["From", "To", "Body", "MessageSid"])
def test_twilio_names_the_field_that_a_text_lacks(name: str) -> None:
    form = {"From": "+639181234567", "To": "+15005550006", "Body": "bord on", "MessageSid": "SM1"}
    assert provider(**TWILIO).parse_inbound(callback(form)).request_id == "SM1"
    with pytest.raises(FieldError, match=f"^{name}: is missing"):
        provider(**TWILIO).parse_inbound(callback(without(form, name)))


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("queued", "queued"),
        ("sent", "sent"),
        ("delivered", "delivered"),
        ("undelivered", "failed"),
        ("failed", "failed"),
        ("something new", "queued"),
    ],
)
def test_twilios_receipts(status: str, state: str) -> None:
    form = {"MessageSid": "SM1", "MessageStatus": status, "ErrorCode": "30003"}
    read = provider(**TWILIO).parse_receipt(callback(form, query={"message_id": "m"}))
    assert (read.state, read.message_id, read.provider_ref) == (state, "m", "SM1")
    assert (read.error == f"{status} 30003") == (state == "failed")


def test_an_unknown_provider_is_named() -> None:
    with pytest.raises(SettingsError, match="carrier-pigeon"):
        provider(SMS_PROVIDER="carrier-pigeon")


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("120") == 120
    assert retry_after("99999999999999") == 86_400
    assert retry_after("soon") is None
    assert retry_after(None) is None
    soon = datetime.now(timezone.utc) + timedelta(seconds=90)
    assert 80 < (retry_after(format_datetime(soon, usegmt=True)) or 0) <= 90
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


# -- against the simulator


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A simulator, for all tests of this file."""
    with Local(tmp_path_factory.mktemp("simulator")) as local:
        local.start_simulator()
        yield local
        local.http.clear()


@pytest.fixture
def simulator(process: Local) -> Local:
    """The simulator, as if it were new."""
    process.http.request("DELETE", f"{process.simulator_url}/sent")
    process.simulator("/control", {"mode": "ok", "receipts": False})
    return process


@pytest.fixture(params=["chikka", "twilio"])
def either(request: pytest.FixtureRequest, simulator: Local) -> Provider:
    environ = {"SMS_PROVIDER_URL": simulator.simulator_url, "SMS_SEND_TIMEOUT": "0.5"}
    return provider(**(TWILIO if request.param == "twilio" else {}), **environ)


def test_sending_and_replying(either: Provider, simulator: Local) -> None:
    first = either.reply(MESSAGE)
    either.send(Outbound("b" * 32, "+639181234567", None, "News", None))
    one, other = simulator.sent()
    assert (one["message"], other["message"]) == (MESSAGE.message, "News")
    assert one["mobile_number"].lstrip("+") == "639181234567"
    assert (first.provider_ref == one["message_id"]) == (either.name == "twilio")
    assert {"message_id", "mobile_number", "message", "at"} <= one.keys()


def test_a_repetition_is_recognised_or_found(either: Provider, simulator: Local) -> None:
    since = datetime.now(timezone.utc)
    simulator.simulator("/control", {"mode": "error_after"})
    with pytest.raises(UnavailableError) as caught:
        either.reply(MESSAGE)
    assert caught.value.in_doubt
    simulator.simulator("/control", {"mode": "ok"})
    if either.recognises_repeats:
        either.reply(MESSAGE)
    else:
        [there] = simulator.sent()
        assert either.find(MESSAGE, since, set()) is not None
        assert either.find(MESSAGE, since, {there["message_id"]}) is None
        assert either.find(MESSAGE, since + timedelta(hours=1), set()) is None
        other = Outbound("c" * 32, MESSAGE.mobile_number, "2929", "Another", "request")
        assert either.find(other, since, set()) is None
    assert len(simulator.sent()) == 1


@pytest.mark.parametrize(
    ("mode", "in_doubt", "wait"),
    [("error", True, None), ("limit", False, 7), ("timeout", True, None)],
)
def test_what_may_go_better_later(
    mode: str, in_doubt: bool, wait: float | None, either: Provider, simulator: Local
) -> None:
    simulator.simulator("/control", {"mode": mode, "retry_after": 7, "delay": 5})
    begun = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        either.reply(MESSAGE)
    assert time.monotonic() - begun < 4.5
    assert (caught.value.in_doubt, caught.value.retry_after) == (in_doubt, wait)
    assert simulator.sent() == []


@pytest.mark.parametrize("environ", [{}, TWILIO], ids=["chikka", "twilio"])
def test_a_connection_that_is_refused(environ: dict[str, str]) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match="127.0.0.1") as caught:
        provider(**environ, SMS_PROVIDER_URL=nobody).reply(MESSAGE)
    assert not caught.value.in_doubt


def test_a_refusal_is_final_and_in_the_providers_words(either: Provider, simulator: Local) -> None:
    simulator.simulator("/control", {"mode": "reject"})
    with pytest.raises(RejectedError, match="400 .*Invalid mobile number"):
        either.reply(MESSAGE)


def test_twilio_tells_who_has_opted_out(simulator: Local) -> None:
    simulator.simulator("/control", {"mode": "opted_out"})
    with pytest.raises(OptedOutError, match="21610"):
        provider(**TWILIO, SMS_PROVIDER_URL=simulator.simulator_url).reply(MESSAGE)


def test_what_is_too_long_is_refused(either: Provider, simulator: Local) -> None:
    longest = Outbound("d" * 32, MESSAGE.mobile_number, "2929", "a" * 1598 + "😀", "request")
    either.reply(longest)
    with pytest.raises(RejectedError, match="400 "):
        either.reply(replace(longest, message_id="e" * 32, message="a" * 1599 + "😀"))


def test_the_simulator_names_what_it_cannot_be_told(simulator: Local) -> None:
    for content, name in (
        ({"mode": "sulk"}, "mode"),
        ({"fail_rate": 2}, "fail_rate"),
        ({"duplicate": "yes"}, "duplicate"),
        ({"speed": 1}, "speed"),
    ):
        url = f"{simulator.simulator_url}/control"
        answer = simulator.http.request("POST", url, json=content)
        assert answer.status == 400
        assert name in answer.json()["message"]
    assert simulator.simulator("/control", {"fail_rate": 0.2})["mode"] == "error"
    assert simulator.simulator("/control", {"mode": "429"})["fail_rate"] == 1.0
    assert simulator.simulator("/control", {"mode": "ok"})["fail_rate"] == 0.0
