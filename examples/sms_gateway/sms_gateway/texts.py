"""What a text says, and whose number it is from. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

import phonenumbers
from phonenumbers import PhoneNumber, PhoneNumberType

from .optout import Request, fold, read_request

#: Characters of the longest number that E.164 allows, its plus sign included.
LONGEST_NUMBER = 16
#: Digits of the shortest number that counts without a plus sign, unless it is a mobile number of
#: the gateway's own country. What is shorter is a shortcode, or a line without its area code.
SHORTEST_NATIONAL = 7
SHORTEST_FOREIGN = 9
#: The same, where nobody knows of such numbers in the country that it would be of.
SHORTEST_UNKNOWN = 10
#: Digits from which a mobile number of another country is likelier than a land line of the
#: gateway's own: some countries, such as Germany, leave hardly any number unused.
SHORTEST_LIKELY = 11

_NUMBER = re.compile(r"\(?\+?[\d\s().\-/]+")
_MOBILE = (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)


@dataclass(frozen=True)
class Text:
    """A text as a keyword's handler gets it."""

    #: As it was sent.
    message: str
    #: Its first word in lower case, without the signs around it, or "".
    word: str
    #: Its second word likewise, or "".
    parameter: str
    #: What follows the second word, white space made single, case kept.
    rest: str
    #: What the provider took the text for, and has answered already.
    opt_out: Request | None = None

    @property
    def request(self) -> Request | None:
        """Whether the text asks for STOP, START or HELP; the provider knows words of its own."""
        own = read_request(self.message)
        return own if own == "stop" else self.opt_out or own

    @property
    def is_stop(self) -> bool:
        """Whether it asks to end every subscription."""
        return self.request == "stop"

    @property
    def keyword_request(self) -> Request | None:
        """What it asks for after its first word, as ``bord stop`` does."""
        return read_request(" ".join((self.parameter, self.rest)).strip())


def parse_text(message: str, opt_out: Request | None = None, names: Collection[str] = ()) -> Text:
    """Take a text apart. Case, white space and the signs around its first words do not matter.

    Args:
        message: as it was sent.
        opt_out: what the provider took it for.
        names: keywords that a wish may name last: ``stop bord`` is ``bord stop``.
    """
    text = _parse(message, opt_out)
    if text.word in names or text.request is not None:
        return text
    words = fold(message)
    named = [name for name in names if name in words]
    wish = read_request(" ".join(word for word in words if word not in named))
    return Text(message, named[0], wish, "", opt_out) if wish and len(named) == 1 else text


def _parse(message: str, opt_out: Request | None) -> Text:
    tokens = message.split()
    if tokens:
        tokens[:1] = re.split(r"[.,:;!?/]+", tokens[0])
    found: list[str] = []
    while tokens and len(found) < 2:
        word = re.sub(r"^[^\w-]+|[^\w-]+$", "", unicodedata.normalize("NFKC", tokens.pop(0)))
        if any(sign.isalnum() for sign in word):
            found.append(word.lower())
    word, parameter = (*found, "", "")[:2]
    return Text(message, word, parameter, " ".join(tokens), opt_out)


def normalise_number(number: str, region: str) -> str:
    """A telephone number in the form of E.164, such as ``+639181234567``.

    Providers leave the plus sign out, and people the country code. So a number without them is
    read, in this order, as one that begins with the code of ``region``, as one of ``region``
    without it, and as one of another country, whose mobile numbers, where they are
    long, come before land lines of ``region``; and never where no such numbers exist, if it may as
    well be something else, such as a shortcode.

    Args:
        number: as the provider wrote it.
        region: the country, in two letters, of numbers without a country code.

    Raises:
        ValueError: it cannot be the number of a telephone.
    """
    text = number.strip()
    if text.isascii() and _NUMBER.fullmatch(text):
        digits = re.sub(r"\D", "", text)
        if "+" in text:
            found = _international(text)
            if found is not None and phonenumbers.is_possible_number(found):
                return _format(found)
        elif digits:
            found = _read_bare(text, digits, region)
            if found is not None:
                return _format(found)
    raise ValueError("not a telephone number")


def _read_bare(text: str, digits: str, region: str) -> PhoneNumber | None:
    has_prefix = digits.startswith("00")
    foreign = _international(f"+{digits[2:] if has_prefix else text}")
    is_valid = foreign is not None and phonenumbers.is_valid_number(foreign)
    code = phonenumbers.country_code_for_region(region)
    if foreign is not None and is_valid and (has_prefix or foreign.country_code == code):
        return foreign
    try:
        national = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        national = None
    if national is not None and phonenumbers.is_valid_number(national):
        is_long = len(digits) >= SHORTEST_LIKELY
        if _is_mobile(national):
            return national
        if is_long and foreign is not None and is_valid and _is_mobile(foreign):
            return foreign
        if len(digits) >= SHORTEST_NATIONAL:
            return national
    if foreign is None or not phonenumbers.is_possible_number(foreign):
        return None
    shortest = SHORTEST_FOREIGN if is_valid else SHORTEST_UNKNOWN
    return foreign if len(digits) >= shortest else None


def _is_mobile(number: PhoneNumber) -> bool:
    return phonenumbers.number_type(number) in _MOBILE


def _international(text: str) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        return None


def _format(number: PhoneNumber) -> str:
    form = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    if len(form) > LONGEST_NUMBER:
        raise ValueError("not a telephone number")
    return str(form)
