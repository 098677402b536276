"""The HTTP contract, on a real server with a real broker and nobody who works."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from typing import Any

import pytest
from order_tracker.requests import MAX_DEPTH
from order_tracker.server import STREAMS


@pytest.fixture
def api(deploy: Any) -> Any:
    """One API process, five units, a limit of two."""
    tracker = deploy(RTB_BROADCAST_MAX_QUEUE=2)
    tracker.init(5)
    tracker.start_api()
    tracker.wait_for_api()
    return tracker


def events_of(api: Any, headers: dict[str, str]) -> Generator[dict[str, Any], None, None]:
    """The events of a stream."""
    request = urllib.request.Request(f"{api.url}/events", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        event: dict[str, Any] = {}
        for raw in answer:
            name, _, value = raw.decode().rstrip("\n").partition(": ")
            if name:
                event[name] = json.loads(value) if name == "data" else value
            elif "data" in event:
                yield event
                event = {}


def test_standing_next_go_and_stop(api: Any) -> None:
    counts = {"pending": 5, "queued": 0, "processing": 0, "success": 0, "error": 0}
    standing = {
        "counts": counts,
        "total": 5,
        "done": 0,
        "in_flight": 0,
        "limit": 2,
        "utilisation": 0.0,
        "going": False,
    }
    assert api.call("GET", "/") == (200, standing)
    assert [one["id"] for one in api.call("GET", "/next?limit=3")[1]["orders"]] == [1, 2, 3]
    status, went = api.call("GET", "/go")
    assert (status, went["sent"], went["in_flight"], went["utilisation"]) == (200, [1, 2], 2, 1.0)
    assert api.call("POST", "/go/")[1]["sent"] == []
    assert [one["id"] for one in api.call("GET", "/next/")[1]["orders"]] == [3, 4, 5]
    assert api.call("POST", "/stop/")[1]["going"] is False
    assert api.call("GET", "/")[1]["in_flight"] == 2


def test_adding_units(api: Any) -> None:
    status, one = api.call("POST", "/orders", {"priority": 7, "payload": {"name": "Ä"}})
    assert (status, one) == (201, {"id": 6, "status": "pending", "priority": 7})
    status, many = api.call("POST", "/orders/", [{}, {"priority": -1}])
    assert (status, [unit["id"] for unit in many["orders"]]) == (201, [7, 8])
    found = api.call("GET", "/orders/6")[1]
    assert found["payload"] == {"name": "Ä"}
    assert [(step["from_status"], step["to_status"]) for step in found["history"]] == [
        (None, "pending")
    ]
    assert api.call("GET", "/next?limit=1")[1]["orders"][0]["id"] == 6


def test_units_that_are_added_while_it_goes_are_fed_at_once(deploy: Any) -> None:
    api = deploy(RTB_BROADCAST_MAX_QUEUE=2)
    api.init(0)
    api.start_api()
    api.wait_for_api()
    assert api.call("GET", "/go/")[1]["sent"] == []
    api.call("POST", "/orders", [{}, {}, {}])
    assert api.call("GET", "/")[1]["in_flight"] == 2


def test_an_idempotency_key_makes_a_repeat_return_the_first_answer(api: Any) -> None:
    def add(body: Any, key: str) -> tuple[int, Any]:
        answer: tuple[int, Any] = api.call(
            "POST", "/orders", body, headers={"Idempotency-Key": key}
        )
        return answer

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: add([{}, {}], "a"), range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 201
    assert api.call("GET", "/")[1]["total"] == 7
    assert add([{}, {}], "b")[1] != answers[0][1]
    status, refused = add([{}], "a")
    assert (status, refused["error"]["field"]) == (422, "Idempotency-Key")


def test_pages(api: Any) -> None:
    status, first = api.call("GET", "/orders?limit=3")
    assert (status, [one["id"] for one in first["orders"]], first["next"]) == (200, [1, 2, 3], 3)
    second = api.call("GET", f"/orders/?limit=3&after={first['next']}")[1]
    assert ([one["id"] for one in second["orders"]], second["next"]) == ([4, 5], None)
    assert len(api.call("GET", "/orders?status=pending")[1]["orders"]) == 5
    assert api.call("GET", "/orders?status=success")[1] == {"orders": [], "next": None}


def test_a_retry_of_what_is_not_in_error(api: Any) -> None:
    status, answer = api.call("POST", "/orders/1/retry")
    assert (status, answer["error"]["message"]) == (
        409,
        "unit 1 is pending: only one in error can be tried again.",
    )
    assert api.call("POST", "/orders/99/retry/")[0] == 404


def nested(depth: int) -> Any:
    """Lists in each other."""
    made: Any = []
    for _ in range(depth - 1):
        made = [made]
    return made


WRONG: list[tuple[str, str, Any, int, str]] = [
    ("GET", "/nothing", None, 404, "/nothing"),
    ("DELETE", "/orders", None, 405, "GET"),
    ("GET", "/stop/", None, 405, "POST"),
    ("GET", "/orders/99", None, 404, "99"),
    ("GET", "/orders/99999999999999999999", None, 404, "99999999999999999999"),
    ("GET", "/orders/x", None, 404, "/orders/x"),
    ("GET", "/next?limit=x", None, 400, "limit"),
    ("GET", "/next?limit=0", None, 400, "1 to 1000"),
    ("GET", "/next?limit=²", None, 400, "limit"),
    ("GET", "/orders?limit=1001", None, 400, "1001"),
    ("GET", "/orders?after=-1", None, 400, "after"),
    ("GET", "/orders?status=done", None, 400, "pending, queued"),
    ("GET", "/orders?statsu=error", None, 400, "statsu"),
    ("GET", "/events?after=x", None, 400, "Last-Event-ID"),
    ("POST", "/orders", [], 400, "no unit"),
    ("POST", "/orders", "x", 400, "object"),
    ("POST", "/orders", [{}, 5], 400, "unit 1"),
    ("POST", "/orders", {"prio": 1}, 400, "prio"),
    ("POST", "/orders", {"priority": "high"}, 400, "'high'"),
    ("POST", "/orders", {"priority": True}, 400, "True"),
    ("POST", "/orders", {"priority": 40_000}, 400, "32767"),
    ("POST", "/orders", {"payload": [1]}, 400, "object"),
    ("POST", "/orders", {"payload": {"x": "y" * 70_000}}, 400, "65536"),
    ("POST", "/orders", {"payload": {"x": float("inf")}}, 400, "Infinity"),
    # Celery would make something else of it, or drop the message; so deep, it ends the worker.
    ("POST", "/orders", {"payload": {"x": {"__type__": "?", "__value__": 1}}}, 400, "__type__"),
    ("POST", "/orders", {"payload": {"__type__": "date", "__value__": "2026-01-01"}}, 400, "keys"),
    ("POST", "/orders", {"payload": {"x": nested(MAX_DEPTH - 1)}}, 400, "at most 64"),
    ("POST", "/orders", {"priority": nested(900)}, 400, "at most 64"),
    ("POST", "/orders", [{}] * 10_001, 413, "10000"),
]


def test_whatever_is_wrong_is_named(api: Any) -> None:
    for method, path, body, expected, named in WRONG:
        path = path.replace("²", "%C2%B2")
        status, answer = api.call(method, path, body)
        assert (status, answer["error"]["status"]) == (expected, expected), (path, answer)
        assert named in answer["error"]["message"], (path, answer)
    assert api.call("GET", "/")[1]["total"] == 5
    status, answer = api.call("POST", "/orders", {}, headers={"Content-Type": "text/plain"})
    assert (status, answer["error"]["field"]) == (415, "Content-Type")
    status, answer = api.call("POST", "/orders", {}, headers={"Idempotency-Key": "x" * 300})
    assert (status, answer["error"]["field"]) == (400, "Idempotency-Key")


def test_every_transition_is_an_event(api: Any) -> None:
    stream = events_of(api, {})
    first = next(stream)
    assert (first["event"], first["data"]["total"]) == ("summary", 5)
    api.call("GET", "/go/")
    moves: list[dict[str, Any]] = []
    while len(moves) < 2:
        event = next(stream)
        if event["event"] == "transition":
            moves.append(event)
    assert [one["data"]["order_id"] for one in moves] == [1, 2]
    assert all(one["data"]["to_status"] == "queued" for one in moves)
    stream.close()
    # Whoever comes back is told what it has missed, and no more.
    again = events_of(api, {"Last-Event-ID": moves[0]["id"]})
    assert next(again)["data"]["order_id"] == 2
    again.close()
    # A mark of another database is none.
    other = events_of(api, {"Last-Event-ID": "4711"})
    assert next(other)["event"] == "summary"
    other.close()


def test_streams_that_are_left_make_room(api: Any) -> None:
    streams = [events_of(api, {}) for _ in range(STREAMS)]
    for stream in streams:
        next(stream)
    status, answer = api.call("GET", "/events")
    assert (status, "another stream" in answer["error"]["message"]) == (503, True)
    assert api.call("GET", "/")[0] == 200  # Streams leave threads for the rest.
    for stream in streams:
        stream.close()
    for _ in range(STREAMS):
        request = urllib.request.Request(f"{api.url}/events", method="HEAD")
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request):
            pass  # It takes a place and reads nothing.
    deadline = time.monotonic() + 15
    while _is_full(api):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _is_full(api: Any) -> bool:
    stream = events_of(api, {})
    try:
        next(stream)
    except urllib.error.HTTPError as error:
        error.close()
        return True
    finally:
        stream.close()
    return False
