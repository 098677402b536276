"""No text is lost and none is answered twice, whatever is killed. TEST_FULL=1 posts 1,000 texts."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sms_gateway.local import Local, wait_until
from sms_gateway.providers.twilio import signature
from sms_gateway.simulator.forms import chikka_text

IS_FULL = os.environ.get("TEST_FULL") == "1"
TEXTS = 1000 if IS_FULL else 60
CLIENTS = 8
KILLS = 3
WORKERS = ("first", "second")


CASES = [
    ("on_servers", "chikka", "error"),
    # Twilio knows no repetition; to make it hard, what fails there is sent all the same.
    ("on_servers", "twilio", "error_after"),
    ("embedded", "chikka", "error"),
]
TWILIO = {
    "SMS_PROVIDER": "twilio",
    "TWILIO_ACCOUNT_SID": "AC1",
    "TWILIO_AUTH_TOKEN": "secret",
    "TWILIO_FROM": "+15005550006",
}


def post_text(local: Local, provider: str, index: int) -> None:
    """One client's text, sent twice at the same time."""
    number, headers = f"63918{index:07}", {}
    form = chikka_text(f"request-{index}", number, "bord on")
    if provider == "twilio":
        form = {"From": f"+{number}", "To": "+15005550006", "Body": "bord on"}
        form["MessageSid"] = f"request-{index}"
        url = f"{local.api_url}/message"
        headers["X-Twilio-Signature"] = signature(TWILIO["TWILIO_AUTH_TOKEN"], url, form)
    with ThreadPoolExecutor(2) as twice:
        posts = twice.map(lambda _: local.post("/message", form, headers).status, range(2))
        assert list(posts) == [202, 202]


@pytest.mark.timeout(600 if IS_FULL else 180)
@pytest.mark.parametrize(("servers", "provider", "mode"), CASES if IS_FULL else CASES[:1])
def test_each_text_is_answered_once(
    servers: str,
    provider: str,
    mode: str,
    gateway: Callable[..., Local],
    request: pytest.FixtureRequest,
) -> None:
    named = {} if servers == "embedded" else request.getfixturevalue(servers)
    settings = {"SMS_SEND_TIMEOUT": "2", "SMS_SEND_MAX_WAIT": "4"}
    settings |= TWILIO if provider == "twilio" else {}
    with gateway(**named, **settings) as local:
        local.start_web()
        for name in WORKERS:
            local.start_worker(name)
        local.start_monitor()
        local.wait_until_ready(*WORKERS, "monitor")
        local.simulator("/control", {"fail_rate": 0.2, "mode": mode})

        with ThreadPoolExecutor(CLIENTS) as clients:
            posts = [clients.submit(post_text, local, provider, index) for index in range(TEXTS)]
            for number in range(KILLS):
                wait_for_replies(local, TEXTS * (number + 1) // (KILLS + 1))
                name = WORKERS[number % 2]
                # Alone, it leaves children that go on with what the broker hands out again.
                local.kill(name, with_children=number != 1)
                local.start_worker(name)
            for post in posts:
                post.result()
        wait_for_replies(local, TEXTS)
        wait_until(lambda: quiet(local), "an end", 120)

        sent = local.sent()
        assert len({one["message_id"] for one in sent}) == len(sent) == TEXTS
        assert Counter(one["mobile_number"] for one in sent).most_common(1)[0][1] == 1
        failures = [one for one in local.simulator("/requests") if one["failure"]]
        assert len(failures) > TEXTS * 0.05
        for index in range(0, TEXTS, TEXTS // 20):
            status, found = local.operator("GET", f"/messages/request-{index}")
            assert (status, found["delivery_state"]) in {(200, "sent"), (200, "delivered")}


def wait_for_replies(local: Local, count: int) -> None:
    """Wait until the provider has sent so many texts."""
    wait_until(lambda: len(local.sent()) >= count, f"{count} replies", 300)


def quiet(local: Local) -> bool:
    """Whether nothing more is asked of the provider for some seconds."""
    before = len(local.simulator("/requests"))
    time.sleep(3)
    return len(local.simulator("/requests")) == before
