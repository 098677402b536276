"""What subscribers and operators live through, by real processes on the embedded broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import count
from typing import Any

import pytest
from sms_gateway.local import Local, wait_until
from sms_gateway.simulator.forms import chikka_text

ATTEMPTS = 3
NUMBERS = count(639_170_000_000)
HURRY = {
    "SMS_SEND_TIMEOUT": "1",
    "SMS_SEND_WAIT": "0.2",
    "SMS_SEND_MAX_WAIT": "0.4",
    "SMS_SEND_ATTEMPTS": str(ATTEMPTS),
    "SMS_BROADCAST_CHUNK": "2",
}


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """The gateway, for all tests of this file."""
    with Local(tmp_path_factory.mktemp("flows"), HURRY) as local:
        local.start_web()
        local.start_worker("worker")
        local.wait_until_ready("worker")
        yield local
        local.http.clear()


@pytest.fixture
def local(processes: Local) -> Local:
    """The gateway, with a simulator as if it were new."""
    processes.http.request("DELETE", f"{processes.simulator_url}/sent")
    processes.simulator(
        "/control",
        {"mode": "ok", "duplicate": False, "receipts": True, "receipt_status": None},
    )
    return processes


def number() -> str:
    """A number that no other test has."""
    return str(next(NUMBERS))


def post(local: Local, who: str, message: str, **more: Any) -> str:
    """Post a text by the simulator; its request id."""
    posted = local.text(who, message, **more)
    assert posted["status"] == 202
    return str(posted["request_id"])


def wait_for(local: Local, request_id: str, *states: str) -> Any:
    """Wait until a text's reply is in one of these states; the conversation."""

    def ask() -> Any:
        status, found = local.operator("GET", f"/messages/{request_id}")
        return status == 200 and found["delivery_state"] in states and found

    return wait_until(ask, f"{states}", 40)


def talk(local: Local, who: str, message: str) -> str:
    """Post a text and return its reply."""
    found = wait_for(local, post(local, who, message), "sent")
    return str(found["reply"]["message"])


def command(local: Local, *arguments: str) -> str:
    """Run an operator's command; what it prints."""
    return local.run("-m", "sms_gateway", *arguments)


def test_an_opt_out_can_be_proved(local: Local) -> None:
    who = number()
    assert "subscribed to BORD" in talk(local, who, "bord on")
    assert "unsubscribed from everything" in talk(local, who, " Stop ")
    assert "not subscribed" in talk(local, who, "bord off")
    proof = command(local, "subscriber", who)
    assert f"+{who} bord: began " in proof and "by the text 'bord on'" in proof
    assert "ended " in proof and "by the text ' Stop '" in proof
    assert '"message_type": "incoming"' in command(local, "subscriber", who, "--json")
    assert "never subscribed" in command(local, "subscriber", number())
    talk(local, who, "bord on")
    assert "1 subscriptions ended" in command(local, "unsubscribe", who, "--reason", "by a call")
    assert "by 'by a call'" in command(local, "subscriber", who)


@pytest.mark.parametrize("message", ["", "what?", "stop it", "stop by later", "B O R D"])
def test_what_is_unknown_gets_the_list_of_keywords(message: str, local: Local) -> None:
    assert "BORD HELP" in talk(local, number(), message)


def test_two_identical_posts_at_once_have_one_reply(local: Local) -> None:
    form = chikka_text("twins", number(), "bord on")
    with ThreadPoolExecutor(8) as clients:
        statuses = list(clients.map(lambda _: local.post("/message", form).status, range(8)))
    assert statuses == [202] * 8
    wait_for(local, "twins", "sent")
    assert local.post("/message", form).status == 202
    assert "subscribed" in talk(local, number(), "bord on")  # all before it are done
    assert [one["mobile_number"] for one in local.sent()].count(form["mobile_number"]) == 1
    assert len(local.simulator("/requests")) == 2


def test_a_refusal_is_recorded_and_not_tried_again(local: Local) -> None:
    local.simulator("/control", {"mode": "reject"})
    found = wait_for(local, post(local, number(), "bord on"), "failed")["reply"]
    assert found["attempts"] == 1
    assert found["error"].startswith("400 ") and "Invalid mobile number" in found["error"]
    assert "Invalid mobile number" in command(local, "outbox")


def test_a_provider_that_asks_to_wait_is_left_alone(local: Local) -> None:
    local.simulator("/control", {"mode": "limit", "retry_after": 3})
    request_id = post(local, number(), "bord on")
    wait_until(lambda: local.simulator("/requests"), "an attempt")
    local.simulator("/control", {"mode": "ok"})
    assert wait_for(local, request_id, "sent")["reply"]["attempts"] == 2
    first, second = (one["at"] for one in local.simulator("/requests"))
    assert _seconds(second) - _seconds(first) >= 3


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def test_a_provider_that_does_not_answer_sends_one_text(local: Local) -> None:
    local.simulator("/control", {"mode": "timeout_after", "delay": 2, "receipts": False})
    request_id = post(local, number(), "bord on")
    wait_until(local.sent, "a text that is sent without an answer")
    local.simulator("/control", {"mode": "ok"})
    found = wait_for(local, request_id, "sent")["reply"]
    assert found["attempts"] == 2
    assert [one["requests"] for one in local.sent()] == [2]


def test_an_outage_is_given_up_and_taken_up_again(local: Local) -> None:
    local.simulator("/control", {"mode": "error"})
    request_id = post(local, number(), "bord on")
    found = wait_for(local, request_id, "failed")["reply"]
    assert found["attempts"] == ATTEMPTS
    assert found["error"].startswith(f"given up after {ATTEMPTS} attempts: 500")
    assert len(local.simulator("/requests")) == ATTEMPTS
    local.simulator("/control", {"mode": "ok"})
    counted = command(local, "resend", "--older-than", "0s", "--dry-run")
    assert "1 messages that were given up" in counted
    command(local, "resend", "--older-than", "0s")
    again = wait_for(local, request_id, "sent")["reply"]
    assert again["message_id"] == found["message_id"]
    assert again["error"] is None
    assert "0 messages that were given up" in command(local, "resend", "--older-than", "0s")


def test_a_receipt_tells_of_a_failure(local: Local) -> None:
    local.simulator("/control", {"receipt_status": "FAILED"})
    found = wait_for(local, post(local, number(), "bord on"), "failed")["reply"]
    assert found["sent_at"] and found["ended_at"]
    assert [one["status"] for one in found["receipts"]] == ["FAILED"]


def test_a_broadcast_goes_to_each_subscriber_once(local: Local) -> None:
    people = [number() for _ in range(5)]
    for who in people:
        talk(local, who, "bord on")
    talk(local, people[0], "bord off")
    local.simulator("/control", {"fail_rate": 0.2, "mode": "error_after", "duplicate": True})
    found = broadcast(local, "The board meets at nine.")
    assert found["total"] == found["sent"] + found["delivered"] + found["failed"]
    sent = [one for one in local.sent() if one["message"] == found["message"]]
    numbers = [one["mobile_number"] for one in sent]
    assert len(numbers) == len(set(numbers)) == found["total"]
    assert set(people[1:]) <= set(numbers) and people[0] not in numbers
    assert "0 broadcasts" in command(local, "requeue", "--older-than", "0s", "--dry-run")


def broadcast(local: Local, message: str) -> dict[str, Any]:
    """Send a broadcast and wait for its end; how far it came."""
    content = {"keyword": "bord", "message": message}
    status, made = local.operator("POST", "/broadcast", content)
    assert status == 202

    def ask() -> Any:
        _, found = local.operator("GET", f"/broadcast/{made['id']}")
        return found["queued_at"] and not found["pending"] and found

    found: dict[str, Any] = wait_until(ask, "the broadcast")
    return found


STOPS = [
    *("Stop.", "STOP!", "STOPALL", "CANCEL", "END", "QUIT", "Stop please", "“STOP”", "BORD STOP"),
    *(
        "bord off!",
        "ＳＴＯＰ",
        "Arrêt",
        "please stop texting me 😡",
        "UNSUBSCRIBE\n",
        "bord cancel",
    ),
]


def test_who_has_said_stop_gets_no_broadcast(local: Local) -> None:
    stays, people = number(), {number(): message for message in STOPS}
    asked = [post(local, who, "bord on") for who in (stays, *people)]
    for request_id in asked:
        wait_for(local, request_id, "sent")
    asked = [post(local, who, message) for who, message in people.items()]
    for request_id in asked:
        reply = wait_for(local, request_id, "sent")["reply"]["message"]
        assert "unsubscribed from" in reply or "not subscribed to BORD any more" in reply
    broadcast(local, "The board is closed.")
    sent = [one["mobile_number"] for one in local.sent() if one["message"].endswith("closed.")]
    assert stays in sent and not people.keys() & set(sent)
    who = next(iter(people))
    assert "subscribed to BORD" in talk(local, who, "START")
    assert "BORD HELP" in talk(local, who, "Help!")
    broadcast(local, "The board is open.")
    sent = [one["mobile_number"] for one in local.sent() if one["message"].endswith("open.")]
    assert {stays, who} <= set(sent) and len(people.keys() & set(sent)) == 1


def test_a_text_that_comes_late_does_not_undo_a_newer_one(local: Local) -> None:
    who, begun = number(), time.time()
    off = post(local, who, "bord off", fields={"timestamp": f"{begun + 1:.2f}"})
    wait_for(local, off, "sent")
    on = post(local, who, "bord on", fields={"timestamp": f"{begun:.2f}"})

    def handled() -> Any:
        status, found = local.operator("GET", f"/messages/{on}")
        return status == 200 and found["inbound"]["handled_at"] and found

    assert wait_until(handled, "the older text")["reply"] is None
    broadcast(local, "Late news.")
    assert who not in [
        one["mobile_number"] for one in local.sent() if one["message"] == "Late news."
    ]


TWILIO = {
    "SMS_PROVIDER": "twilio",
    "TWILIO_ACCOUNT_SID": "AC1",
    "TWILIO_AUTH_TOKEN": "secret",
    "TWILIO_FROM": "+15005550006",
    **HURRY,
}


def test_who_has_told_twilio_to_stop_is_unsubscribed(gateway: Callable[..., Local]) -> None:
    with gateway(**TWILIO) as local:
        local.start_web()
        local.start_worker("worker")
        local.wait_until_ready("worker")
        more = {"provider": "twilio", "shortcode": "+15005550006"}
        people = [f"+63917000000{n}" for n in range(3)]
        for who in people:
            wait_for(local, post(local, who, "bord on", **more), "delivered")
        post(local, people[0], "Tama na po", **more, fields={"OptOutType": "STOP"})
        wait_until(
            lambda: "by the text 'Tama na po'" in command(local, "subscriber", people[0]), ""
        )
        assert broadcast(local, "One")["total"] == 2
        assert people[0] not in [one["mobile_number"] for one in local.sent()[3:]]
        local.simulator("/control", {"mode": "opted_out"})
        found = broadcast(local, "Two")
        assert (found["total"], found["failed"]) == (2, 2)
        assert "21610" in command(local, "subscriber", people[1])
        local.simulator("/control", {"mode": "ok"})
        assert broadcast(local, "Three")["total"] == 0
        # Twilio tells it by a receipt where a message service sends.
        wait_for(local, post(local, people[1], "bord on", **more), "delivered")
        local.simulator("/control", {"receipt_status": "undelivered", "receipt_error": "21610"})
        broadcast(local, "Four")
        wait_until(lambda: "undelivered 21610" in command(local, "subscriber", people[1]), "")
        local.simulator("/control", {"receipt_status": None, "receipt_error": None})
        assert broadcast(local, "Five")["total"] == 0


def test_twilio_which_knows_no_repetition_is_asked(gateway: Callable[..., Local]) -> None:
    with gateway(**TWILIO) as local:
        local.start_web()
        local.start_worker("worker")
        local.wait_until_ready("worker")
        who, more = "+639181234567", {"provider": "twilio", "shortcode": "+15005550006"}
        local.simulator("/control", {"mode": "error_after", "receipts": False})
        first = post(local, who, "bord on", **more)
        found = wait_for(local, first, "sent")["reply"]
        assert found["attempts"] == 2
        assert [one["message_id"] for one in local.sent()] == [found["provider_ref"]]
        local.simulator("/control", {"mode": "ok", "receipts": True, "duplicate": True})
        second = post(local, who, "bord on", **more)
        assert wait_for(local, second, "delivered")["reply"]["error"] is None
        assert len(local.sent()) == 2


def test_a_worker_that_cannot_send_does_not_start(gateway: Callable[..., Local]) -> None:
    local = gateway(SMS_PROVIDER_URL="")
    local.start_worker("sender", "reply")
    assert local.processes["sender"].wait(30) == 1
    assert "sms_gateway: CHIKKA_CLIENT_ID is not set" in local.log_text("sender")


KEYWORD = """
from pathlib import Path

from sms_gateway.keywords import Keyword


class Weather(Keyword):
    word = "weather"
    help_text = "WEATHER tells the weather. Text WEATHER NOW."

    def now(self, text, subscriber):
        tries = Path("tries")
        tries.write_text(f"{tries.read_text() if tries.exists() else ''}x")
        if len(tries.read_text()) < 2:
            raise OSError("the sky is not visible")
        return f"Rain at {text.rest.upper()}."

    def year(self, text, subscriber):
        return "a" * 1599 + "\N{CLOUD WITH RAIN}\N{GRINNING FACE}"
"""


def test_another_distributions_keyword(gateway: Callable[..., Local], tmp_path: Any) -> None:
    info = tmp_path / "weather-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weather\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[sms_gateway.keywords]\nweather = weather:Weather\n")
    (tmp_path / "weather.py").write_text(KEYWORD)
    with gateway(PYTHONPATH=str(tmp_path)) as local:
        local.start_web()
        local.start_worker("worker", "message,bord,weather,reply,notification")
        local.wait_until_ready("worker")
        assert talk(local, number(), "Weather now  Manila") == "Rain at MANILA."
        assert "BORD HELP, WEATHER HELP" in talk(local, number(), "anything")
        assert talk(local, number(), "weather year") == "a" * 1597 + "..."
        assert (
            "of weather takes 1603 units of UCS-2; chikka takes 1600: it is cut"
            in local.log_text("worker")
        )
