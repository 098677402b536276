"""Keywords: what the gateway does with a text, by its first word.

A keyword is a module in this package, or an entry point ``sms_gateway.keywords`` of another
distribution, with a subclass of :class:`Keyword`. Its word is also the name of its queue.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Protocol

from ..errors import SettingsError
from ..optout import is_always_stop, read_request
from ..texts import Text

#: Words that are taken by the gateway's queues and Celery's; so are those of the carriers.
RESERVED = frozenset({"message", "notification", "reply", "broadcast", "celery"})
#: What the carriers' words mean after a keyword that has no parameter of that name.
_SYNONYMS = {"start": "on", "help": "help"}
_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class Subscriber(Protocol):
    """Who sent the text. What it changes is stored together with the reply, or not at all."""

    @property
    def mobile_number(self) -> str:
        """The number in the form of E.164."""

    def is_subscribed(self, word: str) -> bool:
        """Whether there is a subscription to this keyword now."""

    def subscribe(self, word: str) -> bool:
        """Begin a subscription; False if there was one already."""

    def unsubscribe(self, word: str) -> bool:
        """End the subscription; False if there was none."""


class Keyword:
    """Base of all keywords: name ``word`` and ``help_text``, and add a method a parameter.

    ``bord on`` calls ``on(text, subscriber)``. The method returns the reply's text, or None for no
    reply. It may run again where its worker died or it raised, so leave outside effects to tasks.
    A method whose name begins with an underscore is no parameter. ``bord stop`` and its like
    end the subscription without a call; ``bord start`` calls ``on`` where there is one.
    """

    word: str = ""
    help_text: str = ""

    def help(self, text: Text, subscriber: Subscriber) -> str | None:
        """Answer the help text; a text with the keyword alone comes here as well."""
        return self.help_text

    @classmethod
    def parameters(cls) -> tuple[str, ...]:
        """The parameters that this keyword knows, in alphabetical order."""
        base = set(dir(Keyword)) - {"help"}
        return tuple(
            name
            for name in sorted(dir(cls))
            if name not in base and not name.startswith("_") and callable(getattr(cls, name))
        )

    @classmethod
    def answer(cls, text: Text, subscriber: Subscriber) -> str | None:
        """Call the method for the text's parameter and return the reply."""
        if asks_to_end(cls, text):
            subscriber.unsubscribe(cls.word)
            return f"You are unsubscribed from {cls.word.upper()} and will get no more texts of it."
        known, parameter = cls.parameters(), text.parameter or "help"
        if parameter not in known:
            parameter = _SYNONYMS.get(text.keyword_request or "", parameter)
        if parameter not in known:
            return f"{cls.word.upper()} does not know {parameter.upper()[:20]}. {cls.help_text}"
        method: Callable[[Text, Subscriber], str | None] = getattr(cls(), parameter)
        return method(text, subscriber)


@cache
def keywords() -> MappingProxyType[str, type[Keyword]]:
    """All keywords by their words.

    Raises:
        SettingsError: a keyword's word cannot be used.
    """
    found: list[Any] = []
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        found += [item for item in vars(module).values() if _is_keyword(item, module.__name__)]
    found += [point.load() for point in entry_points(group="sms_gateway.keywords")]
    by_word: dict[str, type[Keyword]] = {}
    for item in found:
        _check(item)
        other = by_word.setdefault(item.word, item)
        if other is not item:
            raise SettingsError(
                f"the keyword {item.word!r} is there twice, as {other.__qualname__} of "
                f"{other.__module__} and {item.__qualname__} of {item.__module__}: rename one."
            )
    return MappingProxyType(dict(sorted(by_word.items())))


def asks_to_end(keyword: type[Keyword], text: Text) -> bool:
    """Whether a text that begins with a keyword asks for nothing but the end, as ``bord stop``."""
    return text.parameter not in keyword.parameters() and text.keyword_request == "stop"


def words() -> list[str]:
    """The words of all keywords."""
    return list(keywords())


def list_of_keywords() -> str:
    """The reply to a text that no keyword is for."""
    if not keywords():
        return "Sorry, there is no service at this number now."
    return f"Sorry, we do not know that. Text one of: {help_words()}"


def help_words() -> str:
    """What to text for the help of each keyword."""
    return ", ".join(f"{word.upper()} HELP" for word in keywords())


def _is_keyword(item: Any, module: str) -> bool:
    return isinstance(item, type) and issubclass(item, Keyword) and item.__module__ == module


def _check(item: Any) -> None:
    if not (isinstance(item, type) and issubclass(item, Keyword)):
        raise SettingsError(f"{item!r} is no keyword: name a subclass of Keyword.")
    where = f"{item.__qualname__} of {item.__module__}"
    if not isinstance(item.word, str) or not _WORD.fullmatch(item.word):
        raise SettingsError(
            f"{where}: its word is {item.word!r}; use lower-case letters and digits, 32 at most."
        )
    if item.word in RESERVED:
        raise SettingsError(f"{where}: the word {item.word!r} is taken by the gateway itself.")
    request = read_request(item.word)
    if request is not None:
        raise SettingsError(
            f"{where}: the word {item.word!r} means {request.upper()} to carriers: choose another."
        )
    for name in item.parameters():
        if is_always_stop(name):
            raise SettingsError(
                f"{where}: {item.word.upper()} {name.upper()} ends the subscription, whatever a "
                f"method {name!r} does: give it another name."
            )
