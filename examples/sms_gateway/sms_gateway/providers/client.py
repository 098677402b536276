"""Requests to a provider, and what their answers mean."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from ..errors import RejectedError, UnavailableError

#: Bytes of an answer that are read.
LONGEST_ANSWER = 65_536
#: Characters of an answer that are kept as the provider's words.
LONGEST_WORDS = 500
#: The longest wait that a provider may ask for, in seconds.
LONGEST_RETRY_AFTER = 86_400


@dataclass(frozen=True)
class Answer:
    """What a provider answered."""

    status: int
    body: str
    retry_after: float | None = None

    @property
    def words(self) -> str:
        """Status and body, as one line for people."""
        return f"{self.status} {' '.join(self.body.split())[:LONGEST_WORDS]}".strip()

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty where it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


class Client:
    """Sends requests to one provider. Nothing is retried here, and no redirect is followed.

    Args:
        timeout: seconds for connecting, and for each wait for the answer.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._pool = urllib3.PoolManager(
            maxsize=10, retries=False, timeout=urllib3.Timeout(timeout), cert_reqs="CERT_REQUIRED"
        )

    def request(
        self,
        method: str,
        url: str,
        fields: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a form, or with GET a query, and return the answer.

        Raises:
            UnavailableError: no connection, no answer in time, or none that is HTTP.
        """
        encoded = urlencode(fields)
        sent = {**(headers or {})}
        body = None
        if method == "GET":
            url = f"{url}?{encoded}"
        else:
            body = encoded
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        deadline = time.monotonic() + self._timeout
        try:
            response = self._pool.request(
                method, url, body=body, headers=sent, redirect=False, preload_content=False
            )
            try:
                return self._read(response, deadline)
            finally:
                response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            before = isinstance(
                error,
                urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError,
            )
            # The texts of urllib3 hold the URL, which names the account.
            words = f"{type(error).__name__} at {urlsplit(url).hostname}"
            raise UnavailableError(words, in_doubt=not before) from None

    @staticmethod
    def _read(response: urllib3.BaseHTTPResponse, deadline: float) -> Answer:
        read = bytearray()
        for piece in response.stream(8192):
            read += piece
            if len(read) >= LONGEST_ANSWER or time.monotonic() > deadline:
                response.close()  # the rest is of no interest
                break
        return Answer(
            response.status,
            bytes(read[:LONGEST_ANSWER]).decode("utf-8", "replace").replace("\0", ""),
            retry_after(response.headers.get("Retry-After")),
        )


def raise_for(answer: Answer) -> None:
    """Raise what an answer means, unless the provider took the text.

    429, 5xx and what is no answer to a POST at all may go better later; any other 4xx will not.

    Raises:
        RejectedError, UnavailableError: with the provider's words.
    """
    if 200 <= answer.status < 300:
        return
    if 400 <= answer.status < 500 and answer.status != 429:
        raise RejectedError(answer.words)
    raise UnavailableError(
        answer.words, retry_after=answer.retry_after, in_doubt=answer.status >= 500
    )


def retry_after(value: str | None) -> float | None:
    """The seconds of a header ``Retry-After``, which may be a number or a date; None without."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(min(int(value[:9]), LONGEST_RETRY_AFTER))
    try:
        seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return None
    return min(max(0.0, seconds), float(LONGEST_RETRY_AFTER))
