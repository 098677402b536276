"""The conditions of the ledger as a value: what they may be, and as the parameters of a URL."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from cadasta.workertoolbox import LedgerError, Query
from cadasta.workertoolbox.plain.moments import read_duration, read_moment, write_duration

MOMENT = datetime(2024, 5, 17, 12, 30, 15, 123456, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)

QUERIES = [
    Query(),
    Query(states="FAILURE"),
    Query(states=["RETRY", "FAILURE", "my state, and \\ more", "\\", ","]),
    Query(names="export.*", queues=("mail", "export")),
    Query(names=["a,b", "a", "b\\,"]),
    Query(root_id="a,b", parent_id="\\ü&="),
    Query(since=MOMENT, until=MOMENT.astimezone(timezone(2 * HOUR)) + HOUR),
    *(Query(unfinished_for=age) for age in (timedelta(), HOUR, timedelta(microseconds=1))),
    Query(unfinished_for=timedelta(days=9, hours=1, seconds=2, microseconds=30)),
    Query(headers={"tenant": 5, "text": "5", "quoted": '"5"', "none": None, "null": "null"}),
    Query(headers={"who": {"name": "Eva", "roles": ["a", "b"]}, "a.b=c": "x y", "": ""}),
    Query(headers={"on": True, "off": 0, "large": 2**70, "share": 0.1, "text": "NaN"}),
]


@pytest.mark.parametrize("query", QUERIES, ids=repr)
def test_its_parameters_make_the_same_query(query: Query) -> None:
    params = query.to_params()
    assert all(isinstance(text, str) for text in params.values())
    assert Query.from_params(params) == query
    url = urlencode(params)
    assert Query.from_params(dict(parse_qsl(url, keep_blank_values=True))) == query
    assert pickle.loads(pickle.dumps(query)) == query
    assert hash(pickle.loads(pickle.dumps(query))) == hash(query)
    assert replace(query) == query


def test_parameters_are_plain_text() -> None:
    query = Query(
        states=["RETRY", "FAILURE"],
        names="export.*",
        since=MOMENT,
        unfinished_for=90 * timedelta(seconds=1),
        headers={"tenant": 5, "who": "Eva"},
    )
    assert query.to_params() == {
        "states": "FAILURE,RETRY",
        "names": "export.*",
        "since": "2024-05-17T12:30:15.123456Z",
        "unfinished_for": "90s",
        "header.tenant": "5",
        "header.who": "Eva",
    }


def test_a_duration_is_a_time_before_now() -> None:
    since = Query.from_params({"since": "2h"}).since
    assert since is not None
    assert abs(datetime.now(timezone.utc) - 2 * HOUR - since) < timedelta(minutes=1)


def test_equal_conditions_are_equal() -> None:
    first = Query(states=["RETRY", "FAILURE"], headers={"a": 1, "b": {"c": 2, "d": 3}})
    second = Query(states={"FAILURE", "RETRY"}, headers={"b": {"d": 3, "c": 2}, "a": 1})
    assert first == second and hash(first) == hash(second) and len({first, second}) == 1
    assert Query(names="a") == Query(names=("a",)) == Query(names=iter(["a", "a"]))
    assert Query(headers={"on": True}) != Query(headers={"on": 1})
    assert Query(states="FAILURE") != Query(names="FAILURE")
    assert Query(since=MOMENT) == Query(since=MOMENT.astimezone(timezone(HOUR)))


def test_nothing_of_it_can_be_changed() -> None:
    given: dict[str, Any] = {"roles": ["a"]}
    query = Query(headers=given)
    given["roles"].append("b")
    query.headers["roles"].append("c")
    assert query.headers == {"roles": ["a"]}
    with pytest.raises(FrozenInstanceError):
        query.states = ("FAILURE",)  # type: ignore[misc]
    assert replace(query, states=("FAILURE",)).headers == {"roles": ["a"]}


def test_its_repr_names_what_is_given() -> None:
    assert repr(Query()) == "Query()"
    query = Query(states="FAILURE", headers={"tenant": 5}, unfinished_for=timedelta())
    assert repr(query) == (
        "Query(states=('FAILURE',), unfinished_for=datetime.timedelta(0), headers={'tenant': 5})"
    )


def deep() -> Any:
    nested: Any = 1
    for _ in range(100_000):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"states": ""}, "states='' is no text to look for: give one, or leave it out"),
        ({"states": [5]}, "states=5 is no text"),
        ({"states": b"FAILURE"}, "states=70 is no text"),
        ({"names": 5}, "names=5 is neither a text nor texts: give one, or a list"),
        ({"names": {"a": 1}}, "names={'a': 1} is neither"),
        ({"queues": ["a", None]}, "queues=None is no text"),
        ({"root_id": ""}, "root_id='' is no text"),
        ({"parent_id": 7}, "parent_id=7 is no text"),
        ({"since": datetime(2024, 1, 1)}, "since=.* has no time zone: give an aware datetime"),
        ({"until": "2024-01-01"}, "until='2024-01-01' is no time: give an aware"),
        ({"since": datetime.min.replace(tzinfo=timezone(HOUR))}, "since=.* is out of the calendar"),
        ({"unfinished_for": 5}, "unfinished_for=5 is not an age: give a timedelta"),
        ({"unfinished_for": -HOUR}, "unfinished_for=.* is not an age"),
        ({"unfinished_for": timedelta.max}, "unfinished_for=.* is not an age"),
        ({"headers": [("a", 1)]}, "headers is a list, no mapping: give the names"),
        ({"headers": {"a": deep()}}, "headers are nested too deeply"),
        ({"headers": {"a": 10**5000}}, "headers are nested .*too large a number"),
    ],
)
def test_a_condition_that_cannot_be_one(conditions: dict[str, Any], message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        Query(**conditions)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"state": "FAILURE"}, "'state' is no condition of a query: there are states, names, "),
        ({"after": "x"}, "'after' is no condition"),
        ({"headers": "{}"}, "'headers' is no condition.*header.<name>"),
        ({"header": "5"}, "'header' is no condition"),
        ({"names": ""}, "names='' is no text to look for"),
        ({"states": "FAILURE,"}, "states='' is no text"),
        ({"names": ["a"]}, "names=.* is no text: give each parameter as one"),
        ({"header.a": 5}, "header.a=5 is no text"),
        ({"since": "yesterday"}, "since: 'yesterday' is neither a time"),
        ({"until": "0001-01-01T00:00:00+05:00"}, "until: .* out of the calendar"),
        ({"unfinished_for": "5"}, "unfinished_for: '5' is no duration: write 90s"),
        ({"unfinished_for": "9999999w"}, "unfinished_for: .* longer than there have been years"),
    ],
)
def test_parameters_that_cannot_be_read(params: dict[str, Any], message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        Query.from_params(params)


def test_durations_are_read_and_written() -> None:
    for text in ("0s", "1s", "90s", "15m", "2h", "1d", "4w", "0.5s", "0.000001s", "61.25s"):
        assert write_duration(read_duration(text)) == text
    assert read_duration(" 1.5 h ") == 1.5 * HOUR
    assert write_duration(read_duration("14d")) == "2w"


def test_a_moment_without_a_zone_is_in_utc() -> None:
    assert read_moment("2024-05-17T12:30:15.123456") == MOMENT
    assert read_moment("2024-05-17T14:30:15.123456+02:00") == MOMENT
    assert read_moment("2024-05-17T12:30:15.123456Z").tzinfo is timezone.utc


def test_it_is_loaded_without_sqlalchemy() -> None:
    program = (
        "import sys\nfrom cadasta.workertoolbox import Query\n"
        "print([name for name in sys.modules if name.startswith('sqlalchemy')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr
