"""What a text says, and whose number it is from. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import phonenumbers

#: Characters of the longest number that E.164 allows, its plus sign included.
LONGEST_NUMBER = 16

#: Alone, they end every subscription; carriers require it.
STOP_WORDS = frozenset({"stop", "unsubscribe"})


@dataclass(frozen=True)
class Text:
    """A text as a keyword's handler gets it."""

    #: As it was sent.
    message: str
    #: Its first word in lower case, or "".
    word: str
    #: Its second word in lower case, or "".
    parameter: str
    #: What follows the second word, white space made single, case kept.
    rest: str

    @property
    def is_stop(self) -> bool:
        """Whether it asks to end every subscription."""
        return self.word in STOP_WORDS and not self.parameter


def parse_text(message: str) -> Text:
    """Take a text apart. Case and surrounding or repeated white space do not matter."""
    words = message.split()
    return Text(
        message=message,
        word=words[0].lower() if words else "",
        parameter=words[1].lower() if len(words) > 1 else "",
        rest=" ".join(words[2:]),
    )


def normalise_number(number: str, region: str) -> str:
    """A telephone number in the form of E.164, such as ``+639181234567``.

    Providers leave the plus sign out: a number that is none of ``region`` is read with one.

    Args:
        number: as the provider wrote it.
        region: the country, in two letters, of numbers without a country code.

    Raises:
        ValueError: it cannot be the number of a telephone.
    """
    text = number.strip()
    if not text.isascii() or not any(sign.isdigit() for sign in text):
        raise ValueError("not a telephone number")
    international = text if text.startswith(("+", "0")) else f"+{text}"
    for candidate in (international, text):
        try:
            found = phonenumbers.parse(candidate, region)
        except phonenumbers.NumberParseException:
            continue
        if not found.extension and phonenumbers.is_possible_number(found):
            form = phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164)
            if len(form) <= LONGEST_NUMBER:
                return form
    raise ValueError("not a telephone number")
