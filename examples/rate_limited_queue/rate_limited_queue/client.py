"""A small HTTP client, for programs, the demonstration and the tests."""

from __future__ import annotations

import http.client
import json
from types import TracebackType
from typing import Any
from urllib.parse import urlencode, urlsplit


class Client:
    """Calls one server over one connection that is kept open. Not safe to share by threads.

    Each call returns ``(status, content)``; the content is the answer's JSON.

    Args:
        url: such as ``http://127.0.0.1:8080``.
        token: the server's bearer token, where it has one.
        timeout: seconds that a call may take; a long poll adds its own.
    """

    def __init__(self, url: str, token: str = "", timeout: float = 30.0) -> None:
        self.url = url
        parts = urlsplit(url)
        make = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = make(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)
        self._timeout = timeout
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        self._connection.close()

    def call(self, method: str, path: str, body: Any = None, wait: float = 0) -> tuple[int, Any]:
        """Make a call. ``body`` is sent as JSON, bytes as they are.

        Raises:
            OSError: the server cannot be reached.
            http.client.HTTPException: the connection was lost.
        """
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.timeout = self._timeout + wait
        if self._connection.sock is not None:
            self._connection.sock.settimeout(self._timeout + wait)
        try:
            self._connection.request(method, path, data, self._headers)
            answer = self._connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        return answer.status, json.loads(raw) if raw else None

    def enqueue(
        self,
        queue_type: str,
        queue_id: str,
        job_id: str,
        interval: int,
        payload: dict[str, Any] | None = None,
        **fields: Any,
    ) -> tuple[int, Any]:
        """Enqueue a job; ``interval`` in ms, ``fields`` such as ``requeue_limit``."""
        body = {"job_id": job_id, "interval": interval, "payload": payload or {}, **fields}
        return self.call("POST", f"/enqueue/{queue_type}/{queue_id}/", body)

    def dequeue(
        self, queue_type: str = "default", wait: float = 0, count: int | None = None
    ) -> tuple[int, Any]:
        """Take a job, waiting up to ``wait`` seconds for one; with ``count`` a batch."""
        query: dict[str, Any] = {"wait": wait} if wait else {}
        query |= {} if count is None else {"count": count}
        path = f"/dequeue/{queue_type}/" + (f"?{urlencode(query)}" if query else "")
        return self.call("GET", path, wait=wait)

    def finish(
        self, queue_type: str, queue_id: str, job_id: str, token: str = ""
    ) -> tuple[int, Any]:
        """Finish a job; with ``token`` only by the lease that has it."""
        query = f"?token={token}" if token else ""
        return self.call("POST", f"/finish/{queue_type}/{queue_id}/{job_id}/{query}")

    def interval(self, queue_type: str, queue_id: str, interval: int) -> tuple[int, Any]:
        """Change the interval (ms) of a queue."""
        return self.call("POST", f"/interval/{queue_type}/{queue_id}/", {"interval": interval})
