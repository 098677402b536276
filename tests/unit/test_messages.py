"""A message of the monitor queue as a record."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cadasta.workertoolbox.errors import MessageError
from cadasta.workertoolbox.messages.decoding import TaskRecord, decode, to_json
from cadasta.workertoolbox.messages.policy import StoragePolicy
from cadasta.workertoolbox.messages.redaction import make_redaction

HEADERS: dict[str, Any] = {
    "lang": "py",
    "task": "export.pdf",
    "id": "id-1",
    "eta": "2026-11-20T12:00:00+02:00",
    "expires": None,
    "group": "group-1",
    "retries": 2,
    "timelimit": [30, 20.5],
    "root_id": "root-1",
    "parent_id": "parent-1",
    "argsrepr": "(1, 'two')",
    "kwargsrepr": "{'three': 3}",
    "origin": "gen1@host",
    "replaced_task_nesting": 1,
    "stamped_headers": ["why"],
    "stamps": {"why": ["audit"]},
    "creator_id": 5,
    "toolbox_published_at": "2026-11-20T09:00:00.123456+00:00",
    "toolbox_properties": {"is_result": True},
}
BODY = json.dumps([[1, "two"], {"three": 3}, {"callbacks": None}])


def read(body: Any = BODY, headers: Any = HEADERS, **options: Any) -> TaskRecord:
    options.setdefault("content_type", "application/json")
    options.setdefault("properties", {"priority": 4})
    options.setdefault("exchange", "task_exchange")
    options.setdefault("routing_key", "export")
    return decode(body, headers=headers, **options)


def test_everything_of_a_task_message_is_kept() -> None:
    assert read() == TaskRecord(
        task_id="id-1",
        name="export.pdf",
        queue="export",
        root_id="root-1",
        parent_id="parent-1",
        group_id="group-1",
        args='[1,"two"]',
        kwargs='{"three":3}',
        args_repr="(1, 'two')",
        kwargs_repr="{'three': 3}",
        eta=datetime(2026, 11, 20, 10, tzinfo=timezone.utc),
        retries=2,
        replacements=1,
        origin="gen1@host",
        priority=4,
        time_limit=30,
        soft_time_limit=20.5,
        stamps={"why": ["audit"]},
        headers={"creator_id": 5},
        properties={"is_result": True},
        published_at=datetime(2026, 11, 20, 9, 0, 0, 123456, tzinfo=timezone.utc),
    )


def test_the_queue_is_told_without_the_delay_or_by_the_copy() -> None:
    delay = ".".join(f"{9:028b}")
    assert read(routing_key=f"{delay}.data.sync").queue == "data.sync"
    copied = read(headers={**HEADERS, "toolbox_queue": "foreign"}, routing_key="platform.fifo")
    assert copied.queue == "foreign"
    assert copied.headers == {"creator_id": 5}


@pytest.mark.parametrize("content_type", ["application/x-python-serialize", "text/yaml", None, 5])
def test_what_is_not_json_is_never_parsed(content_type: Any) -> None:
    record = read(b"cos\nsystem\n(S'false'\ntR.", content_type=content_type)
    assert (record.args, record.kwargs, record.args_truncated) == (None, None, True)
    assert record.args_repr == "(1, 'two')"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[1,2]", b"7", b"\xff\xfe", b"[" * 100_000])
def test_a_broken_body_costs_the_arguments_only(body: bytes) -> None:
    record = read(body)
    assert record.task_id == "id-1"
    assert record.args is None and record.args_truncated


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"task": "t", "id": 5}, "id is 5"),
        ({"task": "t", "id": ""}, "id is ''"),
        ({"task": None, "id": "i"}, "task name is None"),
        ({"task": "t", "id": "i" * 156}, "156 characters"),
        ({"task": "t", "id": "i" * 200}, "200 characters"),
        ({}, "neither headers nor body"),
        (None, "neither headers nor body"),
        ("text", "neither headers nor body"),
        ([1], "neither headers nor body"),
    ],
)
def test_what_is_no_task_message_is_refused(headers: Any, words: str) -> None:
    with pytest.raises(MessageError, match=words):
        read(headers=headers)


def test_ill_typed_fields_are_left_out() -> None:
    broken = dict.fromkeys(HEADERS, object) | {"task": "t", "id": "i"}
    record = read(headers=broken, properties={"priority": "high"})
    assert record.retries == 0
    assert (record.priority, record.eta, record.time_limit) == (None, None, None)
    assert record.published_at is None
    assert record.root_id == "i"


def test_the_first_protocol_is_read_from_the_body() -> None:
    body = json.dumps({"task": "old", "id": "i", "args": [1], "kwargs": {"a": 2}, "retries": 1})
    record = read(body, headers={})
    assert (record.name, record.args, record.kwargs, record.retries) == ("old", "[1]", '{"a":2}', 1)
    assert record.args_repr == "[1]"
    with pytest.raises(MessageError, match="which is not read"):
        read(b"\x80\x02}q\x00.", headers={}, content_type="application/x-python-serialize")


def test_large_arguments_leave_their_repr_and_a_mark() -> None:
    large = json.dumps([["x" * 70_000], {"small": 1}, {}])
    record = read(large)
    assert record.args is None and record.args_truncated
    assert record.kwargs == '{"small":1}'
    assert read(large, policy=StoragePolicy(max_args_bytes=80_000)).args_truncated is False
    huge = json.dumps([["x" * 10 * 2**20], {}, {}])
    record = read(huge, headers={**HEADERS, "argsrepr": "y" * 5000})
    assert record.args is record.kwargs is None and record.args_truncated
    assert record.args_repr is not None and len(record.args_repr) == 1024


def test_arguments_can_be_left_out() -> None:
    record = read(policy=StoragePolicy(store_args=False))
    assert record.args is record.kwargs is record.args_repr is record.kwargs_repr is None


def test_numbers_that_are_no_json_become_text() -> None:
    value = [float("nan"), {"a": float("-inf")}, (1.5,)]
    assert to_json(value) == '["nan",{"a":"-inf"},[1.5]]'
    record = read(b"[[NaN], {}, {}]", headers={**HEADERS, "creator_id": float("inf")})
    assert record.args == '["nan"]'
    assert record.headers == {"creator_id": "inf"}


def test_headers_that_are_no_json_or_too_large_do_no_harm() -> None:
    record = read(headers={**HEADERS, "creator_id": {1, 2}.__class__, "when": datetime(2026, 1, 1)})
    assert record.headers is not None and "datetime" in record.headers["when"]
    record = read(headers={**HEADERS, "creator_id": "x" * 70_000})
    assert record.headers is not None and "more than" in record.headers["creator_id"]["error"]


@pytest.mark.parametrize("where", ["headers", "stamps", "properties"])
def test_the_largest_values_are_left_out_and_no_others(where: str) -> None:
    def kept(value: dict[str, Any]) -> Any:
        names = {"stamps": "stamps", "properties": "toolbox_properties"}
        headers = {**HEADERS, names[where]: value} if where in names else {**HEADERS, **value}
        found = getattr(read(headers=headers), where)
        assert len(json.dumps(found)) < 66_000
        return found

    found = kept({"tenant": 7, "trace": "x" * 70_000})
    assert found["tenant"] == 7 and "more than 65536" in found["trace"]["error"]

    # Each of them small enough, all together not.
    found = kept({"tenant": 7, **{f"k{number:02}": "y" * (1000 + number) for number in range(99)}})
    left_out = [name for name, value in found.items() if isinstance(value, dict)]
    assert found["tenant"] == 7 and 30 < len(left_out) < 50
    assert sorted(left_out) == [f"k{number}" for number in range(99 - len(left_out), 99)]

    found = kept({"tenant": 7, **{f"k{number}": number for number in range(10_000)}})
    assert found["tenant"] == 7 and len(found) > 3000 and "values" in found["error"]

    found = kept({"tenant": 7, "k" * 70_000: 1})
    assert (found["tenant"], found["error"][:9]) == (7, "1 values,")

    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert kept({"tenant": 7, "deep": deep})["tenant"] == 7
    while deep:  # Its own end would be as deep.
        deep = deep.pop()


def test_a_large_value_is_hidden_all_the_same() -> None:
    hidden = make_redaction(["*token*"], {})[1]
    properties = {"api_token": "s3cret", "trace": "x" * 70_000, "nested": {"token": "s3cret"}}
    record = read(
        headers={**HEADERS, "toolbox_properties": properties},
        policy=StoragePolicy(redact_headers=hidden),
    )
    assert record.properties is not None and "s3cret" not in repr(record)
    assert (record.properties["api_token"], record.properties["nested"]) == (
        "***",
        {"token": "***"},
    )


@given(st.binary(max_size=300), st.dictionaries(st.text(max_size=10), st.text(max_size=10)))
def test_any_message_is_read_or_refused(body: bytes, headers: dict[str, str]) -> None:
    try:
        record = read(body, headers=headers)
    except MessageError:
        return
    assert record.task_id and record.name


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@given(json_values)
def test_stored_json_is_strict_json(value: Any) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = to_json(value)
    assert text.isascii()
    json.loads(text, parse_constant=refuse)


class Login:
    """As much of a task as redaction looks at."""

    def run(self, user: str, password: str, *rest: str, token: str = "") -> None: ...


def redacted(rule: Any, *args: Any, **kwargs: Any) -> TaskRecord:
    redact, redact_headers = make_redaction(rule, {"login": Login()})
    headers: dict[str, Any] = {"task": "login", "id": "i", "argsrepr": repr(args)}
    headers["api_token"] = "t0p"
    headers["auth"] = {"user": "ann", "Password": "t0p"}
    headers["stamps"] = {"tenant": [1], "token_id": ["t0p"]}
    body = json.dumps([args, kwargs, {}])
    return read(body, headers, policy=StoragePolicy(redact=redact, redact_headers=redact_headers))


def test_named_arguments_are_hidden_wherever_they_stand() -> None:
    record = redacted(
        ["password", "*token*"],
        "ann",
        "t0p",
        {"Password": "t0p", "deep": [{"x_token_y": ["t0p"]}]},
        token="t0p",
        city="Rome",
    )
    assert "t0p" not in repr(record)
    assert json.loads(record.args or "") == [
        "ann",
        "***",
        {"Password": "***", "deep": [{"x_token_y": "***"}]},
    ]
    assert json.loads(record.kwargs or "") == {"token": "***", "city": "Rome"}
    assert record.headers == {"api_token": "***", "auth": {"user": "ann", "Password": "***"}}
    assert record.stamps == {"tenant": [1], "token_id": "***"}
    assert "ann" in (record.args_repr or "")


def test_a_function_may_decide() -> None:
    def rule(task: str, args: Any, kwargs: Any) -> Any:
        return [task], {}

    record = redacted(rule, "t0p", k="t0p")
    assert (record.args, record.kwargs, record.args_repr) == ('["login"]', "{}", "['login']")


def test_what_cannot_be_redacted_is_not_stored() -> None:
    redact, hidden = make_redaction(["password"], {})
    record = read(
        b"not json",
        {"task": "login", "id": "i", "argsrepr": "('t0p',)"},
        policy=StoragePolicy(redact=redact, redact_headers=hidden),
    )
    assert "t0p" not in repr(record)
    assert record.args_truncated


def test_a_redaction_of_another_type_is_refused() -> None:
    from cadasta.workertoolbox.errors import ConfigError

    with pytest.raises(ConfigError, match="MONITOR_REDACT is a int"):
        make_redaction(5, {})
    assert make_redaction((), {}) == (None, None)


def test_arguments_in_signatures_are_hidden_too() -> None:
    signature = {"task": "login", "args": ["ann", "hush"], "kwargs": {"token": "hush"}}
    spread = {"task": {"task": "login", "args": []}, "it": [["ann", "hush"], ["bob", "hush"]]}
    record = redacted(["password", "token"], "ann", "x", signature, chunk=spread)
    assert "hush" not in repr(record)
    harmless = redacted(["secret"], "ann", "x", signature, chunk=spread)
    assert json.loads(harmless.args or "")[2] == signature
    assert json.loads(harmless.kwargs or "") == {"chunk": spread}


def test_all_further_arguments_have_one_name() -> None:
    record = redacted(["rest"], "ann", "x", "hush", "hush")
    assert record.args == '["ann","x","***","***"]'


def test_arguments_of_unknown_names_are_hidden() -> None:
    redact, hidden = make_redaction(["password"], {})
    record = read(headers=HEADERS, policy=StoragePolicy(redact=redact, redact_headers=hidden))
    assert (record.args, record.kwargs) == ('["***","***"]', '{"three":3}')


def fail(task: str, args: Any, kwargs: Any) -> Any:
    raise LookupError(args)


@pytest.mark.parametrize("rule", [fail, lambda *call: ({object()}, {})])
def test_a_redaction_that_fails_costs_the_arguments_only(rule: Any) -> None:
    record = redacted(rule, "hush", k="hush")
    assert record.name == "login" and record.args_truncated
    assert "hush" not in repr(record)


def test_arguments_that_nest_too_deeply_are_left_out() -> None:
    # Later versions of Python read what no function can walk.
    record = read(f"[[{'[' * 990}NaN{']' * 990}], {{}}, {{}}]")
    assert (record.task_id, record.args, record.args_truncated) == ("id-1", None, True)


@pytest.mark.parametrize(
    ("said", "is_known", "expected"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_a_task_ignores_its_result_as_the_message_says_else_as_its_code(
    said: bool | None, is_known: bool, expected: bool
) -> None:
    record = decode(
        b"[[], {}, {}]",
        content_type="application/json",
        headers={"id": "i", "task": "quiet", "ignore_result": said},
        properties={},
        exchange=None,
        routing_key=None,
        ignoring={"quiet"} if is_known else (),
    )
    assert record.ignore_result is expected
