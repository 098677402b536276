"""``python -m sms_gateway demo``: everything on one machine, without any server."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from .local import Local, wait_until

NUMBERS = ("639170000001", "639170000002", "639170000003")
ROUGH_TEXTS = 12


def demonstrate(keep: bool = False) -> int:
    """Show texts going in and replies coming out; return 0 if all went as it should.

    Args:
        keep: leave the folder with broker, databases and logs.
    """
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="sms-gateway-demo-"))
    # Short waits, so that a demonstration of failures does not take minutes.
    settings = {"SMS_SEND_TIMEOUT": "2", "SMS_SEND_MAX_WAIT": "2"}
    try:
        with Local(folder, settings) as local:
            say("Starting the api, the simulator (the provider), two workers and the monitor")
            start(local)
            show_conversations(local)
            show_broadcast(local)
            show_rough_weather(local)
            show_tree(local)
        say(f"All as it should be, in {time.monotonic() - begun:.0f} seconds")
    finally:
        if keep:
            print(f"Everything is in {folder}; with SMS_DIRECTORY={folder}/.sms_gateway try")
            print("    celery -A sms_gateway tasks")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n== {text}", flush=True)


def start(local: Local) -> None:
    """Start all processes."""
    local.start_worker("worker1")
    local.start_worker("worker2")
    local.start_monitor()
    local.start_web()
    local.wait_until_ready("worker1", "worker2", "monitor")
    print(f"   api {local.api_url}, simulator {local.simulator_url}")


def show_conversations(local: Local) -> None:
    """Texts to keywords, and one to none."""
    say("Texts go in, replies come out")
    texts = [(number, "bord on") for number in NUMBERS]
    texts += [(NUMBERS[0], "  BORD   help "), (NUMBERS[1], "what is this?"), (NUMBERS[2], "STOP")]
    for number, message in texts:
        print(f"   {number} > {message}")
        print(f"   {number} < {reply_to(local, number, message)}")


def reply_to(local: Local, number: str, message: str) -> str:
    """Post a text and wait for its reply."""
    request_id = local.text(number, message)["request_id"]

    def ask() -> Any:
        status, found = local.operator("GET", f"/messages/{request_id}")
        return status == 200 and found["delivery_state"] == "sent" and found["reply"]["message"]

    return str(wait_until(ask, f"the reply to {message!r}"))


def show_broadcast(local: Local) -> None:
    """A text for all subscribers: two, since one has sent STOP."""
    say("An operator sends a broadcast to the subscribers of BORD")
    content = {"keyword": "bord", "message": "The board meets at nine."}
    _, made = local.operator("POST", "/broadcast", content)

    def ask() -> Any:
        _, found = local.operator("GET", f"/broadcast/{made['id']}")
        return found["queued_at"] and not found["pending"] and found

    found = wait_until(ask, "the broadcast")
    counts = {name: found[name] for name in ("total", "sent", "delivered", "failed", "pending")}
    print(f"   {counts}")
    if counts["total"] != 2 or counts["sent"] != 2:
        raise SystemExit("the broadcast went to the wrong number of subscribers")


def show_rough_weather(local: Local) -> None:
    """Everything posted twice, every third attempt to send fails, a worker is killed."""
    say(f"{ROUGH_TEXTS} texts, each posted twice; one attempt to send in three gets a 500;")
    print("   and a worker is killed with SIGKILL meanwhile")
    local.simulator("/control", {"fail_rate": 0.34, "mode": "error", "duplicate": True})
    before = {one["message_id"] for one in local.sent()}
    asked_before = len(local.simulator("/requests"))
    requests = []
    for index in range(ROUGH_TEXTS):
        if index == ROUGH_TEXTS // 2:
            local.kill("worker1")
            local.start_worker("worker1")
        requests.append(local.text(f"63918000{index:04}", "bord on")["request_id"])

    def ask() -> bool:
        states = [local.operator("GET", f"/messages/{one}")[1] for one in requests]
        return all(found.get("delivery_state") == "sent" for found in states)

    wait_until(ask, "all replies", 90)
    replies = [one for one in local.sent() if one["message_id"] not in before]
    distinct = {one["mobile_number"] for one in replies}
    attempts = len(local.simulator("/requests")) - asked_before
    print(f"   {len(replies)} replies to {len(distinct)} numbers, in {attempts} attempts")
    local.simulator("/control", {"fail_rate": 0, "mode": "ok", "duplicate": False})
    if len(replies) != ROUGH_TEXTS or len(distinct) != ROUGH_TEXTS:
        raise SystemExit("a reply is missing or went out twice")


def show_tree(local: Local) -> None:
    """One conversation in the ledger."""
    say("One conversation in the ledger, as `celery -A sms_gateway task ID` shows it")
    request_id = local.text(NUMBERS[0], "bord off")["request_id"]

    def ask() -> Any:
        status, found = local.operator("GET", f"/messages/{request_id}")
        return status == 200 and found["delivery_state"] == "sent" and found

    task_id = wait_until(ask, "the reply")["task_ids"]["message"]
    time.sleep(1.5)  # the monitor writes twice a second
    printed = local.run("-m", "celery", "-A", "sms_gateway", "task", task_id)
    lines = [line.rstrip() for line in printed.splitlines()]
    shown = lines[next((i for i, line in enumerate(lines) if line.startswith("workflow")), 0) :]
    print("\n".join(f"   {line}" for line in shown))
    if "reply.send" not in printed:
        raise SystemExit("the ledger does not have it")
