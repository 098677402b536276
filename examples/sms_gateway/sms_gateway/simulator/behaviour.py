"""How the simulator is to behave: what ``POST /control`` sets."""

from __future__ import annotations

import random
import threading
from dataclasses import asdict, dataclass, replace
from typing import Any

#: How an attempt to send can go wrong.
#: ``error``: 500, the text is not sent; ``error_after``: it is sent, and the answer is 500;
#: ``timeout``: no answer for ``delay`` seconds, not sent; ``timeout_after``: the same, and sent;
#: ``limit``: 429 with Retry-After; ``reject``: 400; ``opted_out``: 400, as Twilio answers where the
#: recipient has texted STOP.
FAILURES = ("error", "error_after", "timeout", "timeout_after", "limit", "reject", "opted_out")
#: Other names for them.
ALIASES = {
    "500": "error",
    "5xx": "error",
    "503": "error",
    "429": "limit",
    "400": "reject",
    "4xx": "reject",
    "normal": "ok",
    "none": "ok",
}


@dataclass(frozen=True)
class Behaviour:
    """What is asked of the simulator."""

    #: The part of all attempts to send that goes wrong, 0 to 1.
    fail_rate: float = 0.0
    #: ``ok``, or one of :data:`FAILURES`: how they go wrong.
    mode: str = "ok"
    #: Post each text and each receipt twice, at the same time.
    duplicate: bool = False
    #: Whether receipts are posted.
    receipts: bool = True
    #: The status of receipts: SENT or FAILED for Chikka, any MessageStatus for Twilio.
    receipt_status: str | None = None
    #: The ErrorCode of Twilio's receipts.
    receipt_error: str | None = None
    #: Seconds for which ``timeout`` gives no answer.
    delay: float = 30.0
    #: Seconds that ``limit`` asks to wait.
    retry_after: int = 1

    def changed(self, wanted: dict[str, Any]) -> Behaviour:
        """This behaviour with some of it changed.

        A mode without a rate fails always; a rate without a mode fails with 500.

        Raises:
            ValueError: names what cannot be.
        """
        unknown = sorted(wanted.keys() - asdict(self).keys())
        if unknown:
            raise ValueError(f"{unknown[0]}: use one of {', '.join(asdict(self))}")
        found = dict(wanted)
        if "mode" in found:
            mode = str(found["mode"]).lower()
            found["mode"] = ALIASES.get(mode, mode)
            if found["mode"] not in ("ok", *FAILURES):
                raise ValueError(f"mode: use ok or one of {', '.join(FAILURES)}")
            found.setdefault("fail_rate", 0.0 if found["mode"] == "ok" else 1.0)
        for name in ("fail_rate", "delay", "retry_after"):
            value = found.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise ValueError(f"{name}: give a number, 0 or more")
        if found.get("fail_rate", 0) > 1:
            raise ValueError("fail_rate: give a part, from 0 to 1")
        for name in ("duplicate", "receipts"):
            if not isinstance(found.get(name, False), bool):
                raise ValueError(f"{name}: give true or false")
        for name in ("receipt_status", "receipt_error"):
            if not isinstance(found.get(name), str | None):
                raise ValueError(f"{name}: give a text, or null")
        after = replace(self, **found)
        if after.fail_rate and after.mode == "ok":
            after = replace(after, mode="error")
        return after

    def failure(self) -> str | None:
        """How this attempt goes wrong; None: not at all."""
        return self.mode if random.random() < self.fail_rate else None  # noqa: S311


class Log:
    """What the simulator was asked for. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[str, dict[str, Any]] = {}
        self._requests: list[dict[str, Any]] = []
        self._posted: list[dict[str, Any]] = []

    def note_request(self, **values: Any) -> None:
        """Note that somebody asked to send a text, and how it was answered."""
        with self._lock:
            self._requests.append(values)

    def note_posted(self, **values: Any) -> None:
        """Note that a text or a receipt was posted, and how it was answered."""
        with self._lock:
            self._posted.append(values)

    def note_sent(self, message_id: str, **values: Any) -> bool:
        """Note that a text is sent; False where this message id was sent before."""
        with self._lock:
            if message_id in self._sent:
                self._sent[message_id]["requests"] += 1
                return False
            self._sent[message_id] = {"message_id": message_id, **values, "requests": 1}
            return True

    def sent(self) -> list[dict[str, Any]]:
        """The texts that were sent."""
        with self._lock:
            return [dict(one) for one in self._sent.values()]

    def requests(self) -> list[dict[str, Any]]:
        """All requests to send."""
        with self._lock:
            return list(self._requests)

    def posted(self) -> list[dict[str, Any]]:
        """All that was posted to the gateway."""
        with self._lock:
            return list(self._posted)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._sent.clear()
            self._requests.clear()
            self._posted.clear()
