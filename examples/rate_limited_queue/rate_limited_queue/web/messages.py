"""Requests and answers of the HTTP API, on plain ASGI."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from ..errors import InvalidField, RateLimitedQueueError, TooLarge

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON_TYPE = b"application/json"


class BadBody(RateLimitedQueueError):
    """The body of a request is not the JSON that the call takes."""


class Disconnected(RateLimitedQueueError):
    """The client has gone before it was answered."""


@dataclass(frozen=True)
class Answer:
    """A response: status, body, and headers beside its length and type."""

    status: int
    body: bytes
    content_type: bytes = JSON_TYPE
    headers: tuple[tuple[bytes, bytes], ...] = ()


def answer(status: int, content: Any, **headers: str) -> Answer:
    """Return an answer of JSON; ``www_authenticate="Bearer"`` adds a header."""
    pairs = tuple(
        (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
    )
    body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    return Answer(status, body, headers=pairs)


def failure(status: int, message: str, **headers: str) -> Answer:
    """Return an answer of the form that the API gives all errors."""
    return answer(status, {"status": "failure", "message": message}, **headers)


@dataclass
class Request:
    """One request, its body not read yet.

    Args:
        scope: ASGI's.
        receive: ASGI's.
        parameters: what its path holds.
    """

    scope: Scope
    receive: Receive
    parameters: tuple[str, ...] = ()
    _query: dict[str, str] | None = field(default=None)

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; of several of one name the last."""
        if self._query is None:
            raw = self.scope["query_string"]
            self._query = dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True))
        return self._query

    def query_number(self, name: str, default: float, most: float, whole: bool = True) -> float:
        """Return a number of the query, at least 0.

        Raises:
            InvalidField: it is none, or above ``most``.
        """
        raw = self.query.get(name)
        if raw is None:
            return default
        try:
            value = int(raw) if whole and raw.isascii() else float(raw)
        except ValueError:
            raise InvalidField(name) from None
        if not 0 <= value <= most:
            raise InvalidField(name)
        return value

    async def body(self, limit: int) -> bytes:
        """Read the body.

        Args:
            limit: most bytes of it.

        Raises:
            TooLarge: it has more.
            Disconnected: the client went away.
        """
        message = await self.receive()
        data: bytes = message.get("body", b"")
        if message["type"] == "http.request" and not message.get("more_body"):
            if len(data) > limit:
                _refuse(limit)
            return data
        chunks, size = [data], len(data)
        while message["type"] == "http.request" and message.get("more_body"):
            if size > limit:
                _refuse(limit)
            message = await self.receive()
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
        if message["type"] != "http.request":
            raise Disconnected("The client has gone.")
        if size > limit:
            _refuse(limit)
        return b"".join(chunks)

    async def json(self, limit: int) -> Any:
        """Read the body as JSON; raises as :meth:`body`, and BadBody where it is none."""
        try:
            return json.loads(await self.body(limit), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise BadBody(f"The body is not JSON: {str(error)[:200]}") from None

    async def json_object(self, limit: int) -> dict[str, Any]:
        """Read the body as a JSON object; raises as :meth:`json`."""
        found = await self.json(limit)
        if not isinstance(found, dict):
            raise BadBody("The body has to be a JSON object.")
        return found

    async def disconnected(self) -> None:
        """Return when the client goes away. The body is skipped."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


def _refuse(limit: int) -> NoReturn:
    raise TooLarge(f"The body is larger than {limit} bytes.")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
