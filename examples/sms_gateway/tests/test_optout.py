"""Which texts ask for STOP, START and HELP, and that no keyword is named so."""

from __future__ import annotations

import pytest
from sms_gateway.errors import SettingsError
from sms_gateway.keywords import Keyword, _check, asks_to_end
from sms_gateway.keywords.bord import Bord
from sms_gateway.optout import read_request
from sms_gateway.tasks.message import find_keyword
from sms_gateway.texts import Text, parse_text


@pytest.mark.parametrize(
    "message",
    [
        *(
            "STOP",
            " stop ",
            "Unsubscribe",
            "Stop.",
            "STOP!",
            "STOPALL",
            "stop all",
            "CANCEL",
            "END",
        ),
        *("QUIT", "REVOKE", "OPTOUT", "opt out", "Opt-Out!", "Off", "Stop please", "please stop"),
        *(
            "“STOP”",
            "'stop'",
            "«Stop»",
            "「STOP」",
            "(stop)",
            "*STOP*",
            "#stop",
            "STOP\n",
            "\r\nstop",
        ),
        *(
            "ＳＴＯＰ",
            "𝗦𝗧𝗢𝗣",
            "STOP 🛑",
            "🙏🏽 stop",
            "st\u00adop",
            "stop\u200b",
            "S.T.O.P.",
            "s t o p",
        ),
        *(
            "ARRET",
            "Arrêt!",
            "arrêtez svp",
            "PARA",
            "ALTO?",
            "baja",
            "STOPP",
            "ende",
            "стоп",
            "停止。",
        ),
        *(
            "stop it",
            "Please stop texting me!!",
            "Stop sending me these messages",
            "STOP STOP STOP",
        ),
        *("STOP. Who is this?", "Hi. Please stop.", "STOP\n\nSent from my iPhone", "End\nthanks"),
        *(
            "I want to unsubscribe",
            "how do I unsubscribe",
            "Don’t text me",
            "remove me from your list",
        ),
        *(
            "Please end",
            "cancel, thanks",
            "no more texts",
            "bord stop all",
            "quit\N{VARIATION SELECTOR-16}",
        ),
    ],
)
def test_what_asks_for_stop(message: str) -> None:
    assert read_request(message) == "stop"
    assert parse_text(message).is_stop


@pytest.mark.parametrize(
    "message",
    [
        *("stop asap", "stop receiving texts", "STOP 2 END", "stop2end", "STOPTEXT", "Unsuscribe"),
        *(
            "Cancel my subscription",
            "end subscription",
            "remove my number",
            "no more",
            "no más",
            "no more sms",
        ),
        *("désabonnement", "me désabonner", "darse de baja", "STOPPEN", "stop det", "lopeta"),
        *(
            "wypisz mnie",
            "stop kérem",
            "хватит",
            "СТОР",
            "διακοπή",
            "停止してください",
            "取消订阅",
            "TD",
        ),
        *(
            "그만",
            "قف",
            "עצור",
            "dừng",
            "batal",
            "hentikan",
            "Tama na",
            "बंद करो",
            "বন্ধ",
            "🛑",
            "🛑!",
        ),
    ],
)
def test_what_asks_for_stop_in_other_spellings_and_languages(message: str) -> None:
    assert read_request(message) == "stop"


@pytest.mark.parametrize(
    "message",
    [
        *(
            "",
            "?",
            "what?",
            "stop by later",
            "the end of the road",
            "the end",
            "end game",
            "ending",
        ),
        *("Don't stop", "never stop believing", "bus stop", "stop 1234", "where is the next stop"),
        *(
            "cancel my order 5",
            "I quit smoking",
            "off topic",
            "para sa iyo",
            "The weekend",
            "nonstop",
        ),
        *("text me at the stop", "It will stop raining", "stop the bus", "yes I can", "helpful"),
        *(
            "B O R D",
            "bord on",
            "bord help",
            "do not unsubscribe me",
            "information",
            "starting now",
        ),
    ],
)
def test_what_asks_for_nothing(message: str) -> None:
    assert read_request(message) is None
    assert not parse_text(message).is_stop


@pytest.mark.parametrize(
    ("message", "request_"),
    [
        *((one, "start") for one in ("START", "Start!", "yes", "YES please", "unstop", "“START”")),
        *((one, "help") for one in ("HELP", "help?", "Info", "help me please", "AIDE", "ＨＥＬＰ")),
    ],
)
def test_what_asks_for_start_and_help(message: str, request_: str) -> None:
    assert read_request(message) == request_


@pytest.mark.parametrize(
    "message",
    [
        *("bord stop", "BORD STOP", "“BORD STOP”", "bord: stop!", "BORD.STOP", "bord please stop"),
        *(
            "bord unsubscribe",
            "bord cancel",
            "BORD END.",
            "bord quit",
            "ＢＯＲＤ ＳＴＯＰ",
            "bord 🛑 stop",
        ),
    ],
)
def test_stop_after_a_keyword_ends_that_one(message: str) -> None:
    text = parse_text(message)
    assert (find_keyword(text), asks_to_end(Bord, text)) == ("bord", True)


@pytest.mark.parametrize(
    ("message", "parameter"),
    [
        *((one, "stop") for one in ("stop bord", "STOP BORD!", "please stop the Bord messages")),
        *((one, "stop") for one in ("end bord", "cancel Bord please", "QUIT: BORD", "arrêt bord")),
        *(("START BORD", "start"), ("help, bord", "help")),
    ],
)
def test_a_wish_may_name_its_keyword_last(message: str, parameter: str) -> None:
    text = parse_text(message, None, ["bord", "shop"])
    assert (text.word, text.parameter, text.message) == ("bord", parameter, message)
    assert (find_keyword(text), asks_to_end(Bord, text)) == ("bord", parameter == "stop")


@pytest.mark.parametrize(
    "message", ["is the bord at the stop", "I read bord", "bordstop", "stop by"]
)
def test_what_names_a_keyword_and_asks_for_nothing(message: str) -> None:
    assert parse_text(message, None, ["bord"]) == parse_text(message)


def test_what_the_provider_takes_for_stop_is_one() -> None:
    assert parse_text("Tama na", "stop").is_stop
    assert parse_text("stop", "start").is_stop  # whoever says stop gets nothing more
    assert find_keyword(parse_text("bord on", "stop")) is None
    assert find_keyword(parse_text("bord on", "start")) == "bord"
    assert find_keyword(parse_text("bord stop all")) is None


class Shop(Keyword):
    """A keyword with parameters of its own by words that elsewhere mean STOP and START."""

    word = "shop"
    help_text = "SHOP HELP"

    def on(self, text: Text, subscriber: object) -> str:
        return "welcome"

    def cancel(self, text: Text, subscriber: object) -> str:
        return f"order {text.rest} is cancelled"


class Nobody:
    """Notes what it is asked for."""

    mobile_number = "+639181234567"

    def __init__(self) -> None:
        self.ended: list[str] = []

    def is_subscribed(self, word: str) -> bool:
        return False

    def subscribe(self, word: str) -> bool:
        return True

    def unsubscribe(self, word: str) -> bool:
        self.ended.append(word)
        return True


@pytest.mark.parametrize(
    ("message", "reply", "ended"),
    [
        ("shop cancel 5", "order 5 is cancelled", []),
        ("shop cancel", "order  is cancelled", []),
        ("shop stop", "unsubscribed from SHOP", ["shop"]),
        ("shop off", "unsubscribed from SHOP", ["shop"]),
        ("shop start", "welcome", []),
        ("shop info", "SHOP HELP", []),
        ("shop dance", "does not know DANCE", []),
    ],
)
def test_a_keywords_own_parameters_come_first(message: str, reply: str, ended: list[str]) -> None:
    who = Nobody()
    assert reply in (Shop.answer(parse_text(message), who) or "")
    assert who.ended == ended


@pytest.mark.parametrize(
    "word",
    [
        *(
            "stop",
            "unsubscribe",
            "stopall",
            "stop-all",
            "cancel",
            "end",
            "quit",
            "revoke",
            "optout",
        ),
        *("opt-out", "off", "arret", "para", "alto", "start", "yes", "unstop", "help", "info"),
        *("message", "reply", "celery"),
    ],
)
def test_a_keyword_is_not_named_so(word: str) -> None:
    with pytest.raises(SettingsError, match=f"'{word}'"):
        _check(type("Named", (Keyword,), {"word": word}))


def test_a_parameter_is_not_named_stop() -> None:
    _check(Shop)
    with pytest.raises(SettingsError, match="SHOP STOP"):
        _check(type("Named", (Shop,), {"stop": Shop.cancel}))
