"""How long a text is for a provider."""

from __future__ import annotations

import logging

import pytest
from sms_gateway.segments import Size, measure, shorten
from sms_gateway.store.inbound import sendable


@pytest.mark.parametrize(
    ("message", "size"),
    [
        ("", Size("GSM-7", 0, 1)),
        ("a" * 160, Size("GSM-7", 160, 1)),
        ("a" * 161, Size("GSM-7", 161, 2)),
        ("a" * 306, Size("GSM-7", 306, 2)),
        ("a" * 307, Size("GSM-7", 307, 3)),
        ("€" * 80, Size("GSM-7", 160, 1)),
        ("€" * 81, Size("GSM-7", 162, 2)),
        ("a" * 152 + "€" + "a" * 152, Size("GSM-7", 306, 3)),  # no sign of two is cut
        ("{[^~]}|\\\f", Size("GSM-7", 18, 1)),
        ("ñàΩß\r\n", Size("GSM-7", 6, 1)),
        ("ç" * 70, Size("UCS-2", 70, 1)),
        ("я" * 71, Size("UCS-2", 71, 2)),
        ("я" * 134, Size("UCS-2", 134, 2)),
        ("я" * 135, Size("UCS-2", 135, 3)),
        ("😀" * 35, Size("UCS-2", 70, 1)),
        ("😀" * 66, Size("UCS-2", 132, 2)),
        ("😀" * 67, Size("UCS-2", 134, 3)),
        ("a" * 1599 + "😀", Size("UCS-2", 1601, 24)),
        ("’" + "a" * 69, Size("UCS-2", 70, 1)),
    ],
)
def test_a_text_is_measured_as_it_is_sent(message: str, size: Size) -> None:
    assert measure(message) == size


@pytest.mark.parametrize(
    ("message", "longest", "expected"),
    [
        ("abc", 3, "abc"),
        ("a" * 1601, 1600, "a" * 1597 + "..."),
        ("€" * 10, 11, "€€€€..."),
        ("ab😀cd", 5, "ab..."),
        ("ab 👍🏽cde", 8, "ab..."),  # not an emoji without its skin
        ("xy\u200dz" + "я" * 9, 5, "x..."),
    ],
)
def test_what_is_too_long_is_cut_between_signs(message: str, longest: int, expected: str) -> None:
    assert shorten(message, longest) == expected
    assert measure(expected).units <= longest


def test_a_reply_that_no_provider_takes_is_mended_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert sendable("Hello 😀", "twilio", "to text 1") == "Hello 😀"
    assert not caplog.records
    assert sendable("a" * 1601, "chikka", "to text 1") == "a" * 1597 + "..."
    assert sendable("a\0b\ud800", "twilio", "to text 2") == "ab"
    assert sendable(" \0 ", "twilio", "to text 3") == ""
    assert [one.levelno for one in caplog.records] == [logging.ERROR] * 3
    assert "to text 1 takes 1601 units of GSM-7; chikka takes 1600" in caplog.messages[0]
