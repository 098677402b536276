"""What a request may say; whatever it says else is a RequestError. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from kombu.utils import json as message_json

from .backlog import NewUnit
from .errors import RequestError
from .statuses import STATUSES

MAX_UNITS = 10_000  # a request
MAX_PAYLOAD_BYTES = 65_536  # as JSON
#: Lists and objects within each other. A worker dies of a message with some 250 of them.
MAX_DEPTH = 64
MAX_KEY_LENGTH = 255
PRIORITIES = range(-32_768, 32_768)  # SMALLINT
_MAX_ID = 2**63 - 1
_FIELDS = {"priority", "payload"}


def body_of(mimetype: str, data: bytes) -> Any:
    """The JSON of a request's body."""
    if mimetype != "application/json":
        raise RequestError(
            f"Content-Type is {_short(mimetype)}: send application/json.", 415, "Content-Type"
        )
    too_deep = f"the body is nested too deeply: at most {MAX_DEPTH} lists and objects."
    try:
        body = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        raise RequestError(too_deep) from None
    except ValueError as error:
        raise RequestError(f"the body is no JSON: {error}.") from None
    if _depth(body) > MAX_DEPTH:
        raise RequestError(too_deep)
    return body


def _depth(body: Any) -> int:
    depth, level = 0, _nested([body])
    while level:
        depth += 1
        level = _nested(
            [item for one in level for item in (one.values() if isinstance(one, dict) else one)]
        )
    return depth


def _nested(values: list[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def units_of(body: Any) -> tuple[list[NewUnit], bool]:
    """The units of ``POST /orders``, and whether it was a list of them."""
    if not isinstance(body, list):
        return [_unit(body, "the body")], False
    if not body:
        raise RequestError("the list has no unit: give one or more.")
    if len(body) > MAX_UNITS:
        raise RequestError(f"{len(body)} units: give at most {MAX_UNITS} a request.", 413)
    return [_unit(one, f"unit {number}") for number, one in enumerate(body)], True


def _unit(given: Any, where: str) -> NewUnit:
    if not isinstance(given, dict):
        raise RequestError(
            f"{where} is no JSON object: write one, as in"
            ' {"priority": 5, "payload": {}}, or a list of them.'
        )
    unknown = sorted(set(given) - _FIELDS)
    if unknown:
        raise RequestError(
            f"{where}: no field {unknown[0]!r}; a unit has priority and payload.", field=unknown[0]
        )
    priority = given.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int) or priority not in PRIORITIES:
        raise RequestError(
            f"{where}: priority is {_short(priority)}: write a whole number from"
            f" {PRIORITIES.start} to {PRIORITIES.stop - 1}.",
            field="priority",
        )
    payload = given.get("payload", {})
    if not isinstance(payload, dict):
        raise RequestError(
            f"{where}: payload is {_short(payload)}: write a JSON object.", field="payload"
        )
    try:
        size = len(json.dumps(payload, ensure_ascii=False, allow_nan=False).encode())
    except ValueError as error:  # a number beyond all bounds, or half of a surrogate pair
        raise RequestError(f"{where}: payload cannot be kept: {error}.", field="payload") from None
    if size > MAX_PAYLOAD_BYTES:
        raise RequestError(
            f"{where}: payload has {size} bytes of JSON: at most {MAX_PAYLOAD_BYTES} are kept.",
            field="payload",
        )
    if not _survives(payload):
        raise RequestError(
            f"{where}: payload has an object of the keys __type__ and __value__ alone, which"
            " Celery's messages keep for themselves: rename or add a key.",
            field="payload",
        )
    return NewUnit(priority, payload)


def _survives(payload: dict[str, Any]) -> bool:
    """Whether a worker gets the payload as it is; else it would drop the message, or change it."""
    try:
        return bool(message_json.loads(message_json.dumps(payload)) == payload)
    except Exception:  # whatever the decoder of a type raises
        return False


def whole_number(
    args: Mapping[str, str], name: str, default: int, least: int, most: int = _MAX_ID
) -> int:
    """A whole number from the query string."""
    text = args.get(name)
    if text is None:
        return default
    digits = text[1:] if text.startswith("-") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise RequestError(f"{name}={_short(text)}: write a whole number.", field=name)
    if not least <= int(text) <= most:
        raise RequestError(f"{name}={text}: write a number from {least} to {most}.", field=name)
    return int(text)


def status_of(args: Mapping[str, str]) -> str | None:
    """A status from the query string; None where there is none."""
    status = args.get("status")
    if status is not None and status not in STATUSES:
        raise RequestError(
            f"status={_short(status)}: write one of {', '.join(STATUSES)}.", field="status"
        )
    return status


def refuse_unknown(args: Collection[str], *known: str) -> None:
    """Refuse parameters that would be ignored."""
    for name in sorted(set(args) - set(known)):
        what = f"known are {', '.join(known)}" if known else "there are none here"
        raise RequestError(f"no parameter {_short(name)}; {what}.", field=name)


def idempotency_key(key: str | None) -> str | None:
    """The header ``Idempotency-Key``, checked; None where there is none."""
    if key is not None and not 1 <= len(key.strip()) <= MAX_KEY_LENGTH:
        raise RequestError(
            f"the header has {len(key)} characters: write 1 to {MAX_KEY_LENGTH}.",
            field="Idempotency-Key",
        )
    return key and key.strip()


def fingerprint(body: Any) -> str:
    """The same for the same JSON, whatever its spaces and order."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
