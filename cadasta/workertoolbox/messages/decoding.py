"""A task message as a frozen value: headers and a body in, a :class:`TaskRecord` out."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..errors import MessageError
from ..routing.names import plain_routing_key
from .policy import EVERYTHING, StoragePolicy, log_unstored_arguments

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """One publication of a task, as the ledger stores it. All times are aware, in UTC."""

    task_id: str
    name: str
    queue: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group_id: str | None = None
    #: Positional arguments as strict JSON text, or None where they are not stored.
    args: str | None = None
    #: Keyword arguments as JSON text, or None.
    kwargs: str | None = None
    args_repr: str | None = None
    kwargs_repr: str | None = None
    #: True where the arguments were larger than ``MONITOR_MAX_ARGS_BYTES`` and were left out.
    args_truncated: bool = False
    eta: datetime | None = None
    expires: datetime | None = None
    retries: int = 0
    #: How often the task was replaced (``Task.replace``): Celery's ``replaced_task_nesting``.
    replacements: int = 0
    origin: str | None = None
    priority: int | None = None
    #: Hard and soft time limit in seconds.
    time_limit: float | None = None
    soft_time_limit: float | None = None
    #: True where its result is not stored.
    ignore_result: bool = False
    #: JSON-able values.
    stamps: dict[str, Any] | None = None
    #: What the caller passed in ``headers=``.
    headers: dict[str, Any] | None = None
    #: Message properties given by the caller, such as ``is_result``.
    properties: dict[str, Any] | None = None
    published_at: datetime | None = None


#: When the task was published: ISO 8601, UTC, microseconds.
HEADER_PUBLISHED_AT = "toolbox_published_at"
#: Message properties of the caller that AMQP does not carry.
HEADER_PROPERTIES = "toolbox_properties"
#: The queue of a task that went past the exchange: its copy does not tell.
HEADER_QUEUE = "toolbox_queue"

#: What Celery's own message protocol puts into the headers; all else is a caller's.
_PROTOCOL_HEADERS = frozenset(
    "lang task id shadow eta expires group group_index retries timelimit root_id parent_id argsrepr"
    " kwargsrepr origin ignore_result replaced_task_nesting stamped_headers stamps compression"
    " redelivered x-death x-first-death-exchange x-first-death-queue x-first-death-reason"
    " x-last-death-exchange x-last-death-queue x-last-death-reason x-delivery-count"
    " x-acquired-count toolbox_published_at toolbox_properties toolbox_queue".split()
)
#: The longest task id that the ledger stores, in characters; a longer name is cut.
MAX_ID = 155
#: The longest repr of arguments that is kept, in characters.
MAX_REPR = 1024
#: The largest JSON text of custom headers, stamps or properties that is kept, in characters. Of
#: more the largest values are left out.
MAX_HEADER_BYTES = 65_536
#: A body above this, in bytes, is not even parsed: memory stays flat.
MAX_PARSED_BODY = 2**20
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode  # dumps makes one a call


def decode(
    body: bytes | str,
    *,
    content_type: str | None,
    headers: Mapping[str, Any] | None,
    properties: Mapping[str, Any] | None,
    exchange: str | None,
    routing_key: str | None,
    policy: StoragePolicy = EVERYTHING,
    ignoring: Container[str] = (),
) -> TaskRecord:
    """The record of one task message of the monitor queue.

    Only JSON is ever parsed. Of a body in another format, pickle above all, the record has what
    the headers tell. Fields that are not of their type are left out; without an id and a name it
    is no task message.

    Args:
        body: the body, decompressed.
        content_type: its format, ``application/json`` where it is to be read.
        headers, properties: the message's own.
        exchange, routing_key: what it was published with.
        policy: what of it may be stored.
        ignoring: the names of tasks that ignore their result where the message does not say: a
            program without their code does not know it.

    Raises:
        MessageError: it is no task message; says why.
    """
    # Brokers give dictionaries; asking for a Mapping costs ten times more, thousands of times.
    headers = headers if isinstance(headers, dict) else {}
    properties = properties if isinstance(properties, dict) else {}
    if "task" in headers and "id" in headers:
        fields: Mapping[str, Any] = headers
        args, kwargs, parsed = _parse_arguments(body, content_type)
    else:
        fields = _protocol_1(body, content_type)
        args, kwargs, parsed = fields.get("args") or [], fields.get("kwargs") or {}, True
    task_id = _name(fields.get("id"), "id")
    if len(task_id) > MAX_ID:
        raise MessageError(f"the task message's id has {len(task_id)} characters of {MAX_ID}")
    name = _name(fields.get("task"), "task name")
    stored = _stored_arguments(name, args, kwargs, parsed, fields, policy)
    time_limit, soft_time_limit = _pair(fields.get("timelimit"))
    ignored = fields.get("ignore_result")
    return TaskRecord(
        task_id=task_id,
        name=name,
        queue=_queue(headers, exchange, routing_key),
        root_id=_text(fields.get("root_id")) or task_id,
        parent_id=_text(fields.get("parent_id")),
        group_id=_text(fields.get("group")),
        **stored,
        eta=_time(fields.get("eta")),
        expires=_time(fields.get("expires")),
        retries=_whole(fields.get("retries")) or 0,
        replacements=_whole(fields.get("replaced_task_nesting")) or 0,
        origin=_text(fields.get("origin")),
        priority=_whole(properties.get("priority")),
        time_limit=time_limit,
        soft_time_limit=soft_time_limit,
        ignore_result=ignored is True or (ignored is None and name in ignoring),
        stamps=_mapping(fields.get("stamps"), policy),
        headers=_mapping(_custom_headers(headers), policy),
        properties=_mapping(headers.get(HEADER_PROPERTIES), policy),
        published_at=_time(headers.get(HEADER_PUBLISHED_AT)),
    )


def _parse_arguments(body: Any, content_type: Any) -> tuple[Any, Any, bool]:
    """Arguments of a message of protocol 2, and whether they could be read."""
    if content_type != "application/json" or len(body) > MAX_PARSED_BODY:
        return None, None, False
    try:
        text = body if isinstance(body, str) else body.decode()
        args, kwargs, _embedded = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None, None, False
    return args, kwargs, args is not None and kwargs is not None


def _protocol_1(body: Any, content_type: Any) -> dict[str, Any]:
    """The fields of a message of Celery's first protocol, which has all of them in its body."""
    if content_type != "application/json":
        raise MessageError(
            f"the headers name no task and the body is {content_type!r}, which is not read"
        )
    if len(body) > MAX_PARSED_BODY:
        raise MessageError(f"the headers name no task and the body has {len(body)} bytes")
    try:
        fields = json.loads(body)
    except (ValueError, TypeError, RecursionError) as exc:
        raise MessageError(f"the headers name no task and the body is not JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise MessageError("neither headers nor body name a task")
    return fields


def _stored_arguments(
    name: str,
    args: Any,
    kwargs: Any,
    parsed: bool,
    fields: Mapping[str, Any],
    policy: StoragePolicy,
) -> dict[str, Any]:
    """The columns of the arguments: JSON and repr, redacted and bounded."""
    nothing = dict.fromkeys(("args", "kwargs", "args_repr", "kwargs_repr"))
    if not policy.store_args:
        return nothing
    hidden = {**nothing, "args_truncated": True}
    if policy.redact is not None and not parsed:
        return hidden  # the repr could hold what is to be hidden
    try:
        return _bounded_arguments(name, args, kwargs, parsed, fields, policy)
    except Exception as exc:  # of a redaction of the application, or of what nests too deeply
        log_unstored_arguments(name, exc)
        return hidden


def _bounded_arguments(
    name: str,
    args: Any,
    kwargs: Any,
    parsed: bool,
    fields: Mapping[str, Any],
    policy: StoragePolicy,
) -> dict[str, Any]:
    args_repr, kwargs_repr = _text(fields.get("argsrepr")), _text(fields.get("kwargsrepr"))
    if policy.redact is not None:
        args, kwargs = policy.arguments(name, args, kwargs)
        args_repr, kwargs_repr = repr(args), repr(kwargs)
    elif parsed and args_repr is None:
        args_repr, kwargs_repr = repr(args), repr(kwargs)
    columns: dict[str, Any] = {
        "args": None,
        "kwargs": None,
        "args_repr": args_repr and _cut(args_repr),
        "kwargs_repr": kwargs_repr and _cut(kwargs_repr),
        "args_truncated": not parsed,
    }
    if parsed:
        for column, value in (("args", args), ("kwargs", kwargs)):
            text = to_json(value)
            if policy.fits(text):
                columns[column] = text
            else:
                columns["args_truncated"] = True
    return columns


def to_json(value: Any) -> str:
    """``value`` as ASCII JSON text that every database takes; NaN and infinities become strings."""
    if value == {}:  # most tasks have no keyword arguments
        return "{}"
    try:
        return _encode(value)
    except ValueError:
        return _encode(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def custom_header_names(headers: Mapping[Any, Any]) -> set[Any]:
    """The names of what a caller passed in ``headers=``, among those of Celery's own protocol."""
    return headers.keys() - _PROTOCOL_HEADERS


def _custom_headers(headers: Mapping[str, Any]) -> dict[str, Any] | None:
    names = custom_header_names(headers)
    return {name: headers[name] for name in sorted(names)} if names else None


def _queue(headers: Mapping[str, Any], exchange: Any, routing_key: Any) -> str | None:
    """The name of the work queue: on the topic exchange that is the routing key."""
    key = _text(headers.get(HEADER_QUEUE)) or _text(routing_key) or _text(exchange)
    return key and plain_routing_key(key)


def _name(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise MessageError(f"the task message's {what} is {_cut(repr(value), 80)}, not a text")
    return value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and abs(value) < 2**31 else None


def _pair(value: Any) -> tuple[float | None, float | None]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None, None
    first, second = (v if isinstance(v, int | float) else None for v in value)
    return first, second


def _time(value: Any) -> datetime | None:
    if not isinstance(value, str) or not value:
        return None
    try:
        found = datetime.fromisoformat(value.replace("Z", "+00:00"))
        if found.tzinfo is None:
            return found.replace(tzinfo=timezone.utc)
        return found.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _mapping(value: Any, policy: StoragePolicy) -> dict[str, Any] | None:
    """What is stored of a dictionary, as JSON values; None of what is no dictionary, or empty.

    A value that cannot be stored does not take the others with it: in its place stands why.
    """
    if not value or not isinstance(value, dict):
        return None
    try:
        text = _shown(value, policy)
    except (ValueError, TypeError, RecursionError):
        text = None
    if text is None or len(text) > MAX_HEADER_BYTES:
        text = json.dumps(_bounded(value, policy))
    found: dict[str, Any] = json.loads(text)
    return _finite(found) if "NaN" in text or "Infinity" in text else found


def _shown(value: Mapping[Any, Any], policy: StoragePolicy) -> str:
    shown = value if policy.redact_headers is None else policy.redact_headers(value)
    return json.dumps(shown, default=repr)


def _bounded(value: Mapping[Any, Any], policy: StoragePolicy) -> dict[str, Any]:
    """``value`` with notes in the place of what is not JSON, and of the largest values."""
    kept: dict[str, Any] = {}
    for key, item in value.items():
        name = str(key)
        try:
            kept.update(json.loads(_shown({name: item}, policy)))  # the name may be a hidden one
        except (ValueError, TypeError, RecursionError):
            kept[name] = {"error": "not JSON"}
    # A name stands there with a colon, a comma and blanks.
    sizes = {name: len(json.dumps(name)) + len(json.dumps(kept[name])) + 4 for name in kept}
    size = sum(sizes.values())
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if size <= MAX_HEADER_BYTES:
            return kept
        together = "" if sizes[name] > MAX_HEADER_BYTES else "with the others "
        note = {"error": f"{sizes[name]} bytes, {together}more than {MAX_HEADER_BYTES}"}
        less = len(json.dumps(kept[name])) - len(json.dumps(note))
        if less > 0:
            kept[name] = note
            size -= less
            sizes[name] -= less
    # Thousands of small values, or names that are large themselves.
    left_out = 0
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if size <= MAX_HEADER_BYTES:
            break
        size -= sizes[name]
        left_out += 1
        del kept[name]
    if left_out:
        kept.setdefault("error", f"{left_out} values, with them more than {MAX_HEADER_BYTES} bytes")
    return kept


def _cut(text: str, length: int = MAX_REPR) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
