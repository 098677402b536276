"""Reading texts, keywords and settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sms_gateway.errors import SettingsError
from sms_gateway.keywords import Keyword, keywords, list_of_keywords
from sms_gateway.keywords.bord import Bord
from sms_gateway.settings import Settings
from sms_gateway.texts import Text, parse_text


@pytest.mark.parametrize(
    ("message", "word", "parameter", "rest"),
    [
        ("bord on", "bord", "on", ""),
        ("  BORD\t\n oN  ", "bord", "on", ""),
        ("Bord", "bord", "", ""),
        ("", "", "", ""),
        ("bord say  Hello   World", "bord", "say", "Hello World"),
        ("“Bord on!”", "bord", "on", ""),
        ("bord: off.", "bord", "off", ""),
        ("ｂｏｒｄ　ｏｎ", "bord", "on", ""),
        ("🙏 bord - say it's 3.5!", "bord", "say", "it's 3.5!"),
    ],
)
def test_case_and_white_space_do_not_matter(
    message: str, word: str, parameter: str, rest: str
) -> None:
    assert parse_text(message) == Text(message, word, parameter, rest)


class Somebody:
    """A subscriber in memory."""

    mobile_number = "+639181234567"

    def __init__(self) -> None:
        self.words: set[str] = set()

    def is_subscribed(self, word: str) -> bool:
        return word in self.words

    def subscribe(self, word: str) -> bool:
        was = word in self.words
        self.words.add(word)
        return not was

    def unsubscribe(self, word: str) -> bool:
        was = word in self.words
        self.words.discard(word)
        return was


@pytest.mark.parametrize("message", ["bord", "bord help", "BORD HELP me"])
def test_help_answers_the_help_text(message: str) -> None:
    assert Bord.answer(parse_text(message), Somebody()) == Bord.help_text


def test_bord_on_and_off() -> None:
    who = Somebody()
    assert "subscribed to BORD" in (Bord.answer(parse_text("bord on"), who) or "")
    assert who.words == {"bord"}
    assert "already" in (Bord.answer(parse_text("bord on"), who) or "")
    assert "not subscribed to BORD any more" in (Bord.answer(parse_text("bord off"), who) or "")
    assert who.words == set()


@pytest.mark.parametrize("parameter", ["dance", "word", "answer", "parameters", "_on", "__init__"])
def test_only_a_keywords_own_methods_are_parameters(parameter: str) -> None:
    reply = Bord.answer(parse_text(f"bord {parameter}"), Somebody())
    assert reply is not None
    assert "does not know" in reply and "BORD ON" in reply


def test_what_is_unknown_lists_the_keywords() -> None:
    assert list(keywords()) == ["bord"]
    assert "BORD" in list_of_keywords()


def test_parameters_are_inherited_and_found() -> None:
    class Board(Bord):
        word = "board"

        def say(self, text: Text, subscriber: object) -> str | None:
            return text.rest or None

    assert Board.parameters() == ("help", "off", "on", "say")
    assert Board.answer(parse_text("board say Hi all"), Somebody()) == "Hi all"
    assert Board.answer(parse_text("board say"), Somebody()) is None
    assert Keyword.parameters() == ("help",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SMS_PORT", "eighty"),
        ("SMS_PORT", "70000"),
        ("SMS_REGION", "Philippines"),
        ("SMS_PUBLIC_URL", "sms.example.org"),
        ("SMS_SEND_ATTEMPTS", "0"),
        ("SMS_SEND_TIMEOUT", "nan"),
    ],
)
def test_a_setting_that_cannot_work_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({name: value})


def test_settings_show_no_secrets() -> None:
    found = Settings.from_environment(
        {"SMS_OPERATOR_TOKEN": "hush", "SMS_DATABASE_URL": "postgresql://me:hush@host/db"}
    )
    assert "hush" not in repr(found)
    assert (found.host, found.port) == ("127.0.0.1", 8000)


def test_a_database_that_is_away_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMS_DATABASE_URL", "postgresql://me:hush@127.0.0.1:1/db")
    done = subprocess.run(
        [sys.executable, "-m", "sms_gateway", "outbox"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("sms_gateway: the database cannot be used: ")
    assert done.stderr.count("\n") == 1 and "hush" not in done.stderr
