"""The OpenAPI document, ``GET /openapi.json``."""

from __future__ import annotations

from typing import Any

from ..fields import MAX_INTERVAL

Schema = dict[str, Any]

_IDENTIFIER: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,100}$"}
_STATUS: Schema = {"type": "string"}
_COUNTS: Schema = {"type": "object", "additionalProperties": {"type": "integer"}}


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "required": required, "properties": properties}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items, "maxItems": 1000}


_SCHEMAS: dict[str, Schema] = {
    "Status": _object(["status"], status=_STATUS),
    "Failure": _object(["status"], status={"const": "failure"}, message={"type": "string"}),
    "Job": _object(
        ["job_id", "interval", "payload"],
        job_id=_IDENTIFIER,
        interval={
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_INTERVAL,
            "description": "Milliseconds between two releases of the queue id.",
        },
        payload={
            "type": "object",
            "description": "Any JSON object. A max_queued_length in it limits the waiting jobs.",
            "properties": {"max_queued_length": {"type": "integer", "minimum": 0}},
        },
        requeue_limit={"type": "integer", "minimum": -1, "maximum": MAX_INTERVAL},
    ),
    "Queued": _object(
        ["status"],
        status=_STATUS,
        duplicate={"const": True},
        current_queue_length={"type": "integer"},
        message={"type": "string"},
    ),
    "Delivery": _object(
        [
            "status",
            "job_id",
            "queue_id",
            "payload",
            "requeues_remaining",
            "current_queue_length",
            "token",
        ],
        status=_STATUS,
        job_id=_IDENTIFIER,
        queue_id=_IDENTIFIER,
        payload={"type": "object"},
        requeues_remaining={"type": "integer"},
        current_queue_length={"type": "integer"},
        token={"type": "string"},
    ),
    "JobState": _object(
        ["status", "state", "requeues_remaining"],
        status=_STATUS,
        state={"enum": ["queued", "active", "dead"]},
        requeues_remaining={"type": "integer"},
        jobs_before={"type": "integer"},
        next_release_in={"type": "integer", "description": "Milliseconds."},
        expires_in={"type": "integer", "description": "Milliseconds."},
    ),
    "Metrics": _object(
        ["status", "enqueue_counts", "dequeue_counts"],
        status=_STATUS,
        enqueue_counts=_COUNTS,
        dequeue_counts=_COUNTS,
        queue_types={"type": "array", "items": _IDENTIFIER},
        queue_length={"type": "integer"},
    ),
    "DeadJob": _object(
        ["queue_id", "job_id", "died_at", "payload"],
        queue_id=_IDENTIFIER,
        job_id=_IDENTIFIER,
        died_at={"type": "integer", "description": "Epoch milliseconds."},
        payload={"type": "object"},
    ),
}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(description: str, schema: Schema | None = None) -> Schema:
    if schema is None:
        return {"description": description}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_ERRORS: dict[str, Schema] = {
    "400": _answer("Malformed; the message names the field", _ref("Failure")),
    "401": _answer("A bearer token is needed", _ref("Failure")),
    "503": _answer("The store is away", _ref("Failure")),
}
_NOT_FOUND: dict[str, Schema] = {"404": _answer("Nothing there", _ref("Failure"))}
_TOO_LARGE: dict[str, Schema] = {"413": _answer("Too large", _ref("Failure"))}
_PARAMETERS = {
    name: {"name": name, "in": "path", "required": True, "schema": _IDENTIFIER}
    for name in ("queue_type", "queue_id", "job_id")
}


def _query(name: str, description: str, **schema: Any) -> Schema:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _call(
    summary: str,
    answers: dict[str, Schema],
    body: Schema | None = None,
    query: list[Schema] | None = None,
    needed: bool = True,
) -> Schema:
    found: Schema = {"summary": summary, "responses": {**answers, **_ERRORS}}
    if body is not None:
        found["requestBody"] = {
            "required": needed,
            "content": {"application/json": {"schema": body}},
        }
    if query:
        found["parameters"] = query
    return found


def _paths(max_wait: int) -> dict[str, dict[str, Schema]]:
    delivery, failure = _ref("Delivery"), _ref("Failure")
    batch = _object(["status", "jobs"], status=_STATUS, jobs=_array(delivery))
    dequeue = _call(
        "Take a job that is due",
        {"200": _answer("A job; with count a batch", {"anyOf": [delivery, batch]}), **_NOT_FOUND},
        query=[
            _query("wait", "Seconds to wait for a job", type="number", minimum=0, maximum=max_wait),
            _query("count", "Most jobs of a batch", type="integer", minimum=1, maximum=1000),
        ],
    )
    in_batch = _ref("Job") | {"required": ["queue_id"], "properties": {"queue_id": _IDENTIFIER}}
    finished = _object(
        ["queue_type", "queue_id", "job_id"],
        queue_type=_IDENTIFIER,
        queue_id=_IDENTIFIER,
        job_id=_IDENTIFIER,
        token={"type": "string"},
    )
    statuses = _object(["status", "jobs"], status=_STATUS, jobs=_array(_ref("Queued")))
    metrics = {"200": _answer("Ten one-minute windows, by epoch ms", _ref("Metrics"))}
    ids = _object(["status", "queue_ids"], status=_STATUS, queue_ids={"type": "array"})
    dead = _object(
        ["status", "total", "jobs"],
        status=_STATUS,
        total={"type": "integer"},
        jobs=_array(_ref("DeadJob")),
    )
    pages = [
        _query("count", "Most jobs", type="integer", minimum=1, maximum=1000),
        _query("offset", "Jobs to leave out", type="integer", minimum=0, maximum=MAX_INTERVAL),
    ]
    status = {"200": _answer("Done", _ref("Status"))}
    hello = _object(["message"], message={"type": "string"})
    return {
        "/": {"get": _call("The server runs", {"200": _answer("It does", hello)})},
        "/enqueue/{queue_type}/": {
            "post": _call(
                "Enqueue a batch",
                {"201": _answer("Of each job", statuses), **_TOO_LARGE},
                _object(["jobs"], jobs=_array(in_batch)),
            )
        },
        "/enqueue/{queue_type}/{queue_id}/": {
            "post": _call(
                "Enqueue a job",
                {
                    "200": _answer("It waits or is active already", _ref("Queued")),
                    "201": _answer("Queued", _ref("Queued")),
                    "429": _answer("max_queued_length is reached", failure),
                    **_TOO_LARGE,
                },
                _ref("Job"),
            )
        },
        "/dequeue/": {"get": dequeue},
        "/dequeue/{queue_type}/": {"get": dequeue},
        "/finish/": {
            "post": _call(
                "Finish a batch",
                {"200": _answer("Of each job", statuses), **_TOO_LARGE},
                _object(["jobs"], jobs=_array(finished)),
            )
        },
        "/finish/{queue_type}/{queue_id}/{job_id}/": {
            "post": _call(
                "Finish a job",
                {**status, **_NOT_FOUND},
                query=[_query("token", "Only the lease that has it", type="string")],
            )
        },
        "/job/{queue_type}/{queue_id}/{job_id}/": {
            "get": _call("Look at a job", {"200": _answer("It", _ref("JobState")), **_NOT_FOUND})
        },
        "/interval/{queue_type}/{queue_id}/": {
            "post": _call(
                "Change the interval",
                {**status, **_NOT_FOUND, **_TOO_LARGE},
                _object(["interval"], interval=_SCHEMAS["Job"]["properties"]["interval"]),
            )
        },
        "/metrics/": {"get": _call("Counts of all types", metrics)},
        "/metrics/{queue_type}/": {"get": _call("Queue ids", {"200": _answer("They", ids)})},
        "/metrics/{queue_type}/{queue_id}/": {"get": _call("Counts of a queue id", metrics)},
        "/deletequeue/{queue_type}/{queue_id}/": {
            "delete": _call(
                "Remove the waiting jobs",
                {"200": _answer("Success or Failure", _ref("Status")), **_TOO_LARGE},
                _object([], purge_all={"type": "boolean", "description": "Active jobs, too."}),
                needed=False,
            )
        },
        "/dead/{queue_type}/": {
            "get": _call("Dead jobs", {"200": _answer("The oldest first", dead)}, query=pages),
            "delete": _call("Forget the dead jobs", status),
        },
        "/deepstatus/": {"get": _call("The store answers", status)},
        "/prometheus/": {
            "get": _call("Metrics", {"200": {"description": "", "content": {"text/plain": {}}}})
        },
        "/openapi.json": {"get": _call("This document", {"200": _answer("It", {})})},
    }


def document(max_wait: int) -> dict[str, Any]:
    """Return the document of a server whose long polls last at most ``max_wait`` seconds."""
    paths = _paths(max_wait)
    for path, calls in paths.items():
        found: Any = [one for name, one in _PARAMETERS.items() if f"{{{name}}}" in path]
        if found:
            calls["parameters"] = found
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Rate-limited queue",
            "version": "1",
            "description": "Each queue id releases at most one job an interval.",
        },
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "paths": paths,
    }
