"""The HTTP API of SharQ Server, field for field."""

from __future__ import annotations

import json

import pytest
from rate_limited_queue.client import Client

JOB = "ef022088-d2b3-44ad-bf0d-a93d6d93b82c"


def test_the_index_greets(client: Client) -> None:
    assert client.call("GET", "/") == (200, {"message": "Hello, SharQ!"})


def test_a_job_goes_through(client: Client) -> None:
    body = {"job_id": JOB, "interval": 1000, "payload": {"message": "Hello, wörld."}}
    assert client.call("POST", "/enqueue/sms/johndoe/", body) == (201, {"status": "queued"})
    status, job = client.call("GET", "/dequeue/sms/")
    token = job.pop("token")
    assert token
    assert (status, job) == (
        200,
        {
            "status": "success",
            "job_id": JOB,
            "queue_id": "johndoe",
            "payload": {"message": "Hello, wörld."},
            "requeues_remaining": -1,
            "current_queue_length": 0,
        },
    )
    assert client.call("POST", f"/finish/sms/johndoe/{JOB}/") == (200, {"status": "success"})
    assert client.call("POST", f"/finish/sms/johndoe/{JOB}/") == (404, {"status": "failure"})
    assert client.call("GET", "/dequeue/sms/") == (404, {"status": "failure"})


def test_slashes_at_the_end_may_be_left_out(client: Client) -> None:
    body = {"job_id": "1", "interval": 0, "payload": {}}
    assert client.call("POST", "/enqueue/default/a", body)[0] == 201
    assert client.call("GET", "/dequeue")[1]["job_id"] == "1"
    assert client.call("POST", "/finish/default/a/1")[0] == 200
    for path in ("/metrics", "/metrics/default", "/metrics/default/a", "/deepstatus"):
        assert client.call("GET", path)[0] == 200


def test_the_type_is_default_where_none_is_named(client: Client) -> None:
    client.enqueue("default", "a", "1", 0)
    client.enqueue("other", "a", "2", 0)
    assert client.call("GET", "/dequeue/")[1]["job_id"] == "1"
    assert client.call("GET", "/dequeue/") == (404, {"status": "failure"})


def test_what_the_url_says_wins(client: Client) -> None:
    body = {"job_id": "1", "interval": 0, "payload": {}, "queue_id": "x", "queue_type": "y"}
    client.call("POST", "/enqueue/sms/a/", body)
    assert client.call("GET", "/dequeue/sms/")[1]["queue_id"] == "a"


def test_the_queue_length_is_limited_from_inside_the_payload(client: Client) -> None:
    payload = {"max_queued_length": 2}
    for number in range(2):
        assert client.enqueue("sms", "a", str(number), 0, payload) == (
            201,
            {"status": "queued", "current_queue_length": number},
        )
    assert client.enqueue("sms", "a", "2", 0, payload) == (
        429,
        {"status": "failure", "message": "Max queue length reached", "current_queue_length": 2},
    )
    assert client.dequeue("sms")[1]["current_queue_length"] == 1


def test_the_interval_of_a_known_queue_can_be_changed(client: Client) -> None:
    assert client.interval("sms", "a", 5) == (404, {"status": "failure"})
    client.enqueue("sms", "a", "1", 1000)
    assert client.interval("sms", "a", 5) == (200, {"status": "success"})


def test_metrics(client: Client) -> None:
    status, empty = client.call("GET", "/metrics/")
    assert status == 200
    assert empty["queue_types"] == []
    minutes = sorted(int(one) for one in empty["enqueue_counts"])
    assert len(minutes) == 10
    assert [b - a for a, b in zip(minutes, minutes[1:], strict=False)] == [60_000] * 9
    assert minutes[0] % 60_000 == 0
    for number in range(3):
        client.enqueue("sms", "a", str(number), 0)
    client.enqueue("sms", "b", "0", 0)
    client.dequeue("sms")
    everything = client.call("GET", "/metrics/")[1]
    assert everything["status"] == "success"
    assert everything["queue_types"] == ["sms"]
    assert sum(everything["enqueue_counts"].values()) == 4
    assert sum(everything["dequeue_counts"].values()) == 1
    assert sorted(client.call("GET", "/metrics/sms/")[1]["queue_ids"]) == ["a", "b"]
    one = client.call("GET", "/metrics/sms/a/")[1]
    assert (one["status"], one["queue_length"]) == ("success", 2)
    assert sum(one["enqueue_counts"].values()) == 3
    assert sum(one["dequeue_counts"].values()) == 1


def test_metrics_of_what_is_not_known(client: Client) -> None:
    assert client.call("GET", "/metrics/none/") == (200, {"status": "success", "queue_ids": []})
    status, found = client.call("GET", "/metrics/none/nobody/")
    assert (status, found["queue_length"]) == (200, 0)
    assert set(found["dequeue_counts"].values()) == {0}


def test_deletequeue(client: Client) -> None:
    nothing = (200, {"status": "Failure", "message": "No queued calls found"})
    assert client.call("DELETE", "/deletequeue/sms/a/") == nothing
    for number in range(3):
        client.enqueue("sms", "a", str(number), 0)
    client.dequeue("sms")
    message = "Successfully removed all queued calls"
    assert client.call("DELETE", "/deletequeue/sms/a/", {}) == (
        200,
        {"status": "Success", "message": message},
    )
    assert client.dequeue("sms")[0] == 404
    assert client.finish("sms", "a", "0")[0] == 200, "an active job stays"
    client.enqueue("sms", "a", "4", 0)
    client.dequeue("sms")
    assert client.call("DELETE", "/deletequeue/sms/a/", {"purge_all": True}) == (
        200,
        {"status": "Success", "message": f"{message} and purged related resources"},
    )
    assert client.finish("sms", "a", "4")[0] == 404
    assert client.call("DELETE", "/deletequeue/sms/a/", {"purge_all": "yes"}) == (
        400,
        {"status": "failure", "message": "`purge_all` has an invalid value."},
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("interval", "1000"),
        ("interval", -1),
        ("interval", True),
        ("interval", 1.5),
        ("interval", None),
        ("interval", 2**53 + 1),
        ("job_id", ""),
        ("job_id", "a b"),
        ("job_id", "a" * 101),
        ("job_id", 5),
        ("job_id", "\u212aelvin"),
        ("requeue_limit", -2),
        ("requeue_limit", False),
        ("requeue_limit", "1"),
        ("payload", [1]),
        ("payload", "text"),
    ],
)
def test_a_wrong_field_is_named(shared_client: Client, field: str, value: object) -> None:
    body = {"job_id": "1", "interval": 0, "payload": {}, field: value}
    assert shared_client.call("POST", "/enqueue/sms/a/", body) == (
        400,
        {"status": "failure", "message": f"`{field}` has an invalid value."},
    )


@pytest.mark.parametrize("field", ["job_id", "interval", "payload"])
def test_a_missing_field_is_named(shared_client: Client, field: str) -> None:
    body = {"job_id": "1", "interval": 0, "payload": {}}
    del body[field]
    status, answer = shared_client.call("POST", "/enqueue/sms/a/", body)
    assert (status, answer["status"]) == (400, "failure")
    assert f"`{field}`" in answer["message"]


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("POST", "/enqueue/s%20s/a/", "queue_type"),
        ("POST", "/enqueue/sms/%C3%A4/", "queue_id"),
        ("GET", "/dequeue/%C3%A4/", "queue_type"),
        ("POST", "/finish/s.s/a/1/", "queue_type"),
        ("POST", "/finish/sms/a:b/1/", "queue_id"),
        ("POST", "/finish/sms/a/1+1/", "job_id"),
        ("POST", "/interval/sms/*/", "queue_id"),
        ("GET", "/metrics/%7Bsms%7D/", "queue_type"),
        ("GET", "/metrics/sms/%5B/", "queue_id"),
        ("DELETE", "/deletequeue/sms/a.b/", "queue_id"),
    ],
)
def test_a_wrong_identifier_is_named(
    shared_client: Client, method: str, path: str, field: str
) -> None:
    body = {"job_id": "1", "interval": 0, "payload": {}} if method == "POST" else None
    assert shared_client.call(method, path, body) == (
        400,
        {"status": "failure", "message": f"`{field}` has an invalid value."},
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"\xff\xfe",
        b'{"job_id":"1","interval":NaN,"payload":{}}',
        b'{"job_id":"1","interval":0,"payload":{"x":NaN}}',
        b'{"job_id":"1","interval":0,"payload":{"x":1e999}}',
        b'{"a":' * 10_000,
    ],
)
def test_bad_json_is_400(shared_client: Client, body: bytes) -> None:
    status, answer = shared_client.call("POST", "/enqueue/sms/a/", body)
    assert (status, answer["status"]) == (400, "failure")


def test_content_type_and_what_finish_is_sent_do_not_matter(client: Client) -> None:
    client.enqueue("sms", "a", "1", 0)
    client.dequeue("sms")
    assert client.call("POST", "/finish/sms/a/1/", b"{not json")[0] == 200


def test_any_payload_comes_back_as_it_was(client: Client) -> None:
    payload = {
        "": [],
        "deep": {"list": [1, -2.5, None, True, {"ä": "\u2028\U0001f600\x00"}]},
        "number": 12345678901234567890123,
        "half": "\ud800",
    }
    client.enqueue("sms", "a", "1", 0, payload)
    assert client.dequeue("sms")[1]["payload"] == payload


def test_head_takes_no_job(client: Client) -> None:
    client.enqueue("default", "a", "1", 0)
    assert client.call("HEAD", "/dequeue/") == (405, None)
    assert client.call("HEAD", "/metrics/") == (200, None)
    assert client.dequeue()[1]["job_id"] == "1"


def test_what_is_not_there_is_told_as_json(client: Client) -> None:
    assert client.call("GET", "/nothing/")[1]["status"] == "failure"
    status, answer = client.call("GET", "/enqueue/sms/a/")
    assert (status, answer["status"]) == (405, "failure")


def test_a_payload_above_the_limit_is_refused(client: Client) -> None:
    limit = 1_048_576
    fits = {"x": "a" * (limit - len('{"x":""}'))}
    assert len(json.dumps(fits, separators=(",", ":"))) == limit
    assert client.enqueue("sms", "a", "1", 0, fits)[0] == 201
    assert client.dequeue("sms")[1]["payload"] == fits
    status, answer = client.enqueue("sms", "a", "2", 0, {"x": fits["x"] + "a"})
    assert (status, answer["status"]) == (413, "failure")
    client.close()
    status, answer = client.enqueue("sms", "a", "2", 0, {"x": "a" * 3 * limit})
    assert (status, answer["status"]) == (413, "failure")
