"""The HTTP contract, over real sockets."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from sms_gateway.local import TOKEN, Local, free_port
from sms_gateway.providers.twilio import signature
from sms_gateway.simulator.forms import chikka_receipt, chikka_text
from werkzeug.datastructures import MultiDict

TEXT = chikka_text("5048303030534D415254", "639181234567", "bord on")
RECEIPT = chikka_receipt("0" * 32)
ACCEPTED = {"status": 202, "message": "ACCEPTED"}
NOT_FOUND = {"status": 404, "message": "NOT FOUND"}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """An api, for all tests of this file; nothing else runs."""
    with Local(tmp_path_factory.mktemp("api")) as found:
        found.start_api()
        yield found
        found.http.clear()


def ask(
    local: Local,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    chunked: bool = False,
) -> tuple[int, Any, http.client.HTTPResponse]:
    """One request on a connection of its own: status, JSON, answer."""
    connection = http.client.HTTPConnection(urlsplit(local.api_url).netloc, timeout=30)
    try:
        connection.request(method, path, body, headers or {}, encode_chunked=chunked)
        answer = connection.getresponse()
        assert answer.getheader("Content-Type") == "application/json"
        text = answer.read()
        return answer.status, json.loads(text) if text else None, answer
    finally:
        connection.close()


def post(local: Local, path: str, form: dict[str, str]) -> tuple[int, Any]:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return ask(local, "POST", path, urlencode(form), headers)[:2]


def operator(body: Any) -> dict[str, Any]:
    return {
        "body": body if isinstance(body, str) else json.dumps(body),
        "headers": {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    }


def test_what_is_right_is_accepted(local: Local) -> None:
    assert post(local, "/message", TEXT) == (202, ACCEPTED)
    assert post(local, "/message", TEXT) == (202, ACCEPTED)
    assert post(local, "/notification", RECEIPT) == (202, ACCEPTED)
    assert post(local, "/notification", {**RECEIPT, "status": "FAILED"}) == (202, ACCEPTED)


@pytest.mark.parametrize(
    ("path", "form"),
    [("/message", TEXT), ("/notification", RECEIPT)],
    ids=["message", "notification"],
)
def test_each_missing_or_malformed_field_is_named(
    path: str, form: dict[str, str], local: Local
) -> None:
    for name in form:
        status, content = post(local, path, {k: v for k, v in form.items() if k != name})
        assert (status, content["status"]) == (400, 400)
        assert content["message"] == f"{name}: is missing"
        if name != "message":
            status, content = post(local, path, {**form, name: "\x01"})
            assert status == 400
            assert content["message"].startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/message"),
        ("PUT", "/message"),
        ("DELETE", "/notification"),
        ("OPTIONS", "/message"),
        ("POST", "/message/"),
        ("POST", "/health"),
        ("GET", "/broadcast"),
        ("POST", "/broadcast/1"),
        ("GET", "/messages"),
        ("GET", "/messages/a/b"),
        ("BREW", "/message"),
        ("GET", "/%00%ff"),
    ],
)
def test_anything_else_is_not_found(method: str, path: str, local: Local) -> None:
    status, content, _ = ask(local, method, path)
    assert (status, content) == (404, NOT_FOUND)


@pytest.mark.parametrize("path", ["/message", "/notification", "/broadcast"])
def test_a_body_over_64_kib_is_too_large(path: str, local: Local) -> None:
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Authorization": f"Bearer {TOKEN}",
    }
    for size in (65_537, 600_000):
        status, content, _ = ask(local, "POST", path, b"m=" + b"a" * (size - 2), headers)
        assert (status, content["status"]) == (413, 413)
    pieces = [b"m=" + b"a" * 40_000, b"a" * 40_000]
    headers["Transfer-Encoding"] = "chunked"
    assert ask(local, "POST", path, pieces, headers, chunked=True)[0] == 413


def test_a_body_of_64_kib_is_read(local: Local) -> None:
    form = urlencode({**TEXT, "request_id": "long", "message": ""})
    form += "a" * (65_536 - len(form))
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert form.endswith("aaa")
    status, content, _ = ask(local, "POST", "/message", form, headers)
    assert (status, content["message"].partition(":")[0]) == (400, "timestamp")
    text = {**TEXT, "request_id": "long", "message": "a" * 60_000}
    assert post(local, "/message", text) == (202, ACCEPTED)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}],
    ids=["none", "wrong", "basic"],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/broadcast"), ("GET", "/broadcast/1"), ("GET", "/messages/1")],
)
def test_operators_have_a_token(
    method: str, path: str, headers: dict[str, str], local: Local
) -> None:
    body = '{"keyword": "bord", "message": "x"}' if method == "POST" else None
    status, content, answer = ask(local, method, path, body, headers)
    assert (status, content["status"]) == (401, 401)
    assert answer.getheader("WWW-Authenticate") == "Bearer"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("nothing", "body"),
        ("[]", "body"),
        ("[" * 60_000, "body"),
        ({"message": "x"}, "keyword"),
        ({"keyword": "bord"}, "message"),
        ({"keyword": "nobody", "message": "x"}, "keyword"),
        ({"keyword": 1, "message": "x"}, "keyword"),
        ({"keyword": "bord", "message": "  "}, "message"),
        ({"keyword": "bord", "message": "x" * 1601}, "message"),
        ({"keyword": "bord", "message": "a" * 1599 + "😀"}, "message"),
        ({"keyword": "bord", "message": "€" * 801}, "message"),
        ({"keyword": "bord", "message": "\0"}, "message"),
        ('{"keyword": "bord", "message": "\\ud800"}', "message"),
    ],
)
def test_a_broadcast_that_cannot_be(body: Any, name: str, local: Local) -> None:
    status, content, _ = ask(local, "POST", "/broadcast", **operator(body))
    assert status == 400
    assert content["message"].startswith(f"{name}: ")


def test_a_broadcast_can_be_looked_up_at_once(local: Local) -> None:
    wanted = operator({"keyword": "BORD ", "message": "News"})
    status, content, _ = ask(local, "POST", "/broadcast", **wanted)
    assert (status, content["message"]) == (202, "ACCEPTED")
    status, found = local.operator("GET", f"/broadcast/{content['id']}")
    assert (status, found["keyword"], found["total"], found["pending"]) == (200, "bord", 0, 0)
    wanted["headers"]["Idempotency-Key"] = "monday"
    ids = {ask(local, "POST", "/broadcast", **wanted)[1]["id"] for _ in range(2)}
    assert len(ids) == 1
    wanted["body"] = '{"keyword": "bord", "message": "Other news"}'
    status, content, _ = ask(local, "POST", "/broadcast", **wanted)
    assert (status, content["message"].partition(":")[0]) == (400, "Idempotency-Key")


@pytest.mark.parametrize(
    ("message", "segments"),
    [("a" * 1600, 11), ("a" * 1598 + "😀", 24), ("€" * 800, 11), ("a" * 161, 2), ("😀", 1)],
)
def test_a_broadcast_is_measured_as_it_is_sent(message: str, segments: int, local: Local) -> None:
    wanted = operator({"keyword": "bord", "message": message})
    status, content, _ = ask(local, "POST", "/broadcast", **wanted)
    assert (status, content["segments"]) == (202, segments)


def test_what_nobody_knows_is_not_found(local: Local) -> None:
    assert local.operator("GET", "/broadcast/no-such") == (404, NOT_FOUND)
    assert local.operator("GET", "/messages/no-such") == (404, NOT_FOUND)
    assert local.operator("GET", "/messages/%00") == (404, NOT_FOUND)


def test_health(local: Local) -> None:
    assert ask(local, "GET", "/health")[:2] == (200, {"status": 200, "message": "OK"})


def test_without_a_token_operators_have_no_routes(tmp_path_factory: Any) -> None:
    with Local(tmp_path_factory.mktemp("closed"), {"SMS_OPERATOR_TOKEN": ""}) as closed:
        closed.start_api()
        for method, path in (("POST", "/broadcast"), ("GET", "/broadcast/1")):
            headers = {"Authorization": "Bearer "}
            assert ask(closed, method, path, None, headers)[:2] == (404, NOT_FOUND)
        assert ask(closed, "GET", "/messages/1")[:2] == (404, NOT_FOUND)
        closed.http.clear()


def test_while_the_broker_is_down_nothing_is_accepted(tmp_path_factory: Any) -> None:
    nobody = f"amqp://guest:hush@127.0.0.1:{free_port()}//"
    with Local(tmp_path_factory.mktemp("no-broker"), {"CELERY_BROKER_URL": nobody}) as local:
        local.start_api()
        body, headers = urlencode(TEXT), {"Content-Type": "application/x-www-form-urlencoded"}
        status, content, answer = ask(local, "POST", "/message", body, headers)
        assert (status, content) == (503, {"status": 503, "message": "the broker is down"})
        assert int(answer.getheader("Retry-After") or 0) > 0
        status, content, answer = ask(local, "GET", "/health")
        assert (status, content["down"]) == (503, ["broker"])
        assert "broker" in content["message"] and "database" not in content["message"]
        wanted = operator({"keyword": "bord", "message": "x"})
        assert ask(local, "POST", "/broadcast", **wanted)[0] == 503
        assert "hush" not in local.log_text("api")
        local.http.clear()


def test_while_the_database_is_down_texts_are_accepted(tmp_path_factory: Any) -> None:
    nobody = f"postgresql://me:hush@127.0.0.1:{free_port()}/db"
    settings = {
        "SMS_DATABASE_URL": nobody,
        "CELERY_RESULT_BACKEND": "toolbox+sqlite:///ledger.sqlite3",
    }
    with Local(tmp_path_factory.mktemp("no-database"), settings) as local:
        local.start_api()
        assert post(local, "/message", TEXT) == (202, ACCEPTED)
        status, content, _ = ask(local, "GET", "/health")
        assert (status, content["down"]) == (503, ["database"])
        assert local.operator("GET", "/messages/1")[0] == 503
        assert local.operator("POST", "/broadcast", {"keyword": "bord", "message": "x"})[0] == 202
        assert "hush" not in local.log_text("api")
        local.http.clear()


def test_twilios_callers_are_verified(tmp_path_factory: Any) -> None:
    settings = {
        "SMS_PROVIDER": "twilio",
        "TWILIO_ACCOUNT_SID": "AC1",
        "TWILIO_AUTH_TOKEN": "secret",
    }
    form = {"From": "+639181234567", "To": "+15005550006", "Body": "bord on", "MessageSid": "SM1"}
    with Local(tmp_path_factory.mktemp("twilio"), settings) as local:
        local.start_api()
        # The address counts as it was written, also what of it could be written otherwise.
        for path in ("/message?from=%C3%A9%2F", "/message"):
            headers = {"X-Twilio-Signature": signature("secret", f"{local.api_url}{path}", form)}
            assert local.post(path, form, headers).status == 202
        forged = local.post("/message", {**form, "Body": "bord off"}, headers)
        assert (forged.status, forged.json()["status"]) == (403, 403)
        assert local.post("/message", form).status == 403
        # It may sign the port that it does not call, and a field more than once.
        fields = MultiDict([*form.items(), ("MediaUrl", "b"), ("MediaUrl", "a"), ("MediaUrl", "b")])
        for path in ("/message", "/message?x=1"):
            port = urlsplit(local.api_url).port
            for address in (local.api_url, f"{local.api_url}".removesuffix(f":{port}")):
                signed = signature("secret", f"{address}{path}", fields)
                headers = {
                    "X-Twilio-Signature": signed,
                    "Content-Type": "application/x-www-form-urlencoded",
                }
                body = urlencode(list(fields.items(multi=True)))
                assert ask(local, "POST", path, body, headers)[0] == 202
                body = body.replace("MediaUrl=a", "MediaUrl=c")
                assert ask(local, "POST", path, body, headers)[0] == 403
        local.http.clear()
