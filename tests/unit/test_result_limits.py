"""What databases take of a result, counted; and text made to fit."""

from __future__ import annotations

from typing import Any

import pytest

from cadasta.workertoolbox.results.limits import hide_inputs, shortened
from cadasta.workertoolbox.sql import dialects
from cadasta.workertoolbox.sql.dialects import mysql, postgresql
from cadasta.workertoolbox.sql.fitting import UTF8MB3, Fitting, key


@pytest.mark.parametrize(
    ("name", "driver", "size"),
    [
        ("postgresql", "psycopg2", 11),
        ("postgresql", "psycopg", 7),
        ("mysql", "pymysql", 10),
        ("mariadb", "mysqldb", 10),
        ("sqlite", "pysqlite", 7),
    ],
)
def test_the_size_of_a_statement(name: str, driver: str, size: int) -> None:
    row = {"result": b"a'\"\n", "name": "ab\u00e9"[:2] + "c", "retries": 5, "stamps": None}
    assert dialects.by_name(name).size(row, driver) == size


@pytest.mark.parametrize(
    ("charsets", "codec"),
    [
        ([], None),
        (["utf8mb4"], None),
        (["utf8mb4", "utf8mb3"], UTF8MB3),
        (["utf8", "utf8mb4"], UTF8MB3),
        (["utf8mb3", "latin1"], "cp1252"),
        (["cp1251"], "cp1251"),
        (["latin1", "cp1251"], "ascii"),
        (["swe7"], "ascii"),
    ],
)
def test_the_codec_of_mysql(charsets: list[str], codec: str | None) -> None:
    assert mysql.codec_of(charsets) == codec


@pytest.mark.parametrize(
    ("encoding", "codec"),
    [
        ("UTF8", None),
        ("LATIN1", "iso8859-1"),
        ("WIN1251", "cp1251"),
        ("SQL_ASCII", "ascii"),
        ("KOI8R", "koi8-r"),
        ("MULE_INTERNAL", "ascii"),
    ],
)
def test_the_codec_of_postgresql(encoding: str, codec: str | None) -> None:
    assert postgresql.codec_of(encoding) == codec


def test_text_that_fits_is_left_alone() -> None:
    for text in ("", "abc", "задача 💥", "x" * 155):
        assert Fitting().text(text, 155) == text
        assert Fitting().key(text) == key(text) == text


def test_ids_that_do_not_fit_stay_apart() -> None:
    ids = ["x" * 156, "x" * 157, "x" * 155 + "y", "a\0b", "a\ufffdb", "a\ud800b", "a?b"]
    keys = [Fitting().key(one) for one in ids]
    assert len(set(keys)) == len(ids)
    assert all(len(one) <= 155 and one.isprintable() for one in keys)
    assert keys[0].startswith("x" * 90 + "~")
    assert Fitting("cp1252").key("задача") != Fitting("cp1252").key("задачи")


@pytest.mark.parametrize("result", [None, 5, "text", {"a": 1}, {"exc_type": "E"}])
def test_what_is_no_error_is_shortened_to_one(result: Any) -> None:
    found, trace = shortened(result, None, "too large")
    assert isinstance(found, dict) and "exc_type" in found and trace is None
    large = {"exc_type": "E", "exc_module": "m", "exc_message": ["x" * 3000, 5]}
    assert shortened(large, "t" * 50, "too large") == (
        {
            **large,
            "exc_message": [
                "x" * 2000 + "... (3,003 characters, of which this is kept: too large)"
            ],
        },
        "t" * 50,
    )


def test_text_that_looks_like_pydantics() -> None:
    plain = {"a": ["input_value=5", 5, None], "b": "input_value=\ninput_type=str]"}
    assert hide_inputs(plain) == plain
    two = (
        "x [type=a, input_value='1', input_type=str]\ny [type=b, input_value=<2\n2>, input_type=X]"
    )
    assert hide_inputs(two) == (
        "x [type=a, input_value=***, input_type=str]\ny [type=b, input_value=***, input_type=X]"
    )
