"""Posting texts and receipts to the gateway, as a provider does: until it accepts them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import urllib3

from ..providers.twilio import signature
from .behaviour import Behaviour, Log
from .forms import chikka_text

#: How often a post is tried that the gateway does not accept, and the seconds between.
ATTEMPTS = 30
WAIT = 1.0


@dataclass
class Callbacks:
    """Posts to one gateway."""

    url: str
    auth_token: str = field(repr=False)
    log: Log
    _pool: urllib3.PoolManager = field(
        default_factory=lambda: urllib3.PoolManager(maxsize=16, retries=False, timeout=15.0)
    )
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(8, thread_name_prefix="callback")
    )

    def post_text(
        self,
        behaviour: Behaviour,
        provider: str,
        number: str,
        shortcode: str,
        message: str,
        more: Mapping[str, str],
    ) -> dict[str, Any]:
        """Post a text from a subscriber, with fields as given, and return the gateway's answer."""
        request_id = secrets.token_hex(16)
        if provider == "twilio":
            request_id = f"SM{request_id}"
            form = {"From": number, "To": shortcode, "Body": message, "MessageSid": request_id}
        else:
            form = chikka_text(request_id, number, message, shortcode)
        form.update(more)
        statuses = self._post(f"{self.url}/message", form, behaviour.duplicate, attempts=1)
        return {"request_id": request_id, "status": max(statuses), "posts": len(statuses)}

    def post_receipt(self, behaviour: Behaviour, url: str, form: dict[str, str]) -> None:
        """Post a receipt, in the background."""
        self._threads.submit(self._post, url, form, behaviour.duplicate, ATTEMPTS)

    def _post(self, url: str, form: dict[str, str], twice: bool, attempts: int) -> list[int]:
        if not twice:
            return [self._post_once(url, form, attempts)]
        found: list[int] = []
        other = threading.Thread(target=lambda: found.append(self._post_once(url, form, attempts)))
        other.start()
        found.append(self._post_once(url, form, attempts))
        other.join()
        return found

    def _post_once(self, url: str, form: dict[str, str], attempts: int) -> int:
        headers = {}
        if self.auth_token:
            headers["X-Twilio-Signature"] = signature(self.auth_token, url, form)
        status = 0
        for attempt in range(attempts):
            if attempt:
                time.sleep(WAIT)
            try:
                response = self._pool.request(
                    "POST", url, fields=form, encode_multipart=False, headers=headers
                )
                status = response.status
            except urllib3.exceptions.HTTPError:
                status = 0
            self.log.note_posted(url=url, form=form, status=status)
            if 0 < status < 500:
                break
        return status
