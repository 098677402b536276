"""Reading the fields of what a provider posts. Every problem is a FieldError with the name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation

from ..errors import FieldError
from ..texts import normalise_number

#: Seconds since 1970 at the end of the year 9999.
_LAST_MOMENT = 253_402_300_799


def required(form: Mapping[str, str], name: str, longest: int = 128) -> str:
    """A field that is an identifier or the like: there, not blank, printable, not too long."""
    value = form.get(name)
    if value is None:
        raise FieldError(name, "is missing")
    value = value.strip()
    if not value:
        raise FieldError(name, "is empty")
    if len(value) > longest:
        raise FieldError(name, f"is longer than {longest} characters")
    if not value.isprintable():
        raise FieldError(name, "holds a control character")
    return value


def expect(form: Mapping[str, str], name: str, expected: str) -> None:
    """A field that has one value only."""
    value = required(form, name)
    if value.lower() != expected:
        raise FieldError(name, f"is {value[:40]!r}, not {expected!r}")


def message(form: Mapping[str, str], name: str) -> str:
    """The text of a subscriber; it may be empty. Databases cannot store NUL."""
    value = form.get(name)
    if value is None:
        raise FieldError(name, "is missing")
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")


def number(form: Mapping[str, str], name: str, region: str) -> str:
    """A telephone number, in the form of E.164."""
    value = required(form, name, 40)
    try:
        return normalise_number(value, region)
    except ValueError as error:
        raise FieldError(name, f"is {value!r}, {error}") from None


def shortcode(form: Mapping[str, str], name: str = "shortcode") -> str:
    """A shortcode: digits."""
    value = required(form, name, 32)
    if not (value.isascii() and value.isdigit()):
        raise FieldError(name, f"is {value!r}, not digits")
    return value


def moment(form: Mapping[str, str], name: str = "timestamp") -> datetime:
    """A time in seconds since 1970, with or without a fraction."""
    value = required(form, name, 40)
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LAST_MOMENT:  # NaN is not, either
        raise FieldError(name, f"is {value!r}, not seconds since 1970")
    return datetime.fromtimestamp(seconds, timezone.utc)


def cost(form: Mapping[str, str], name: str) -> Decimal:
    """What a text cost, in credits."""
    value = required(form, name, 20)
    try:
        found = Decimal(value)
    except InvalidOperation:
        found = Decimal(-1)
    if not (found.is_finite() and 0 <= found <= 999_999):  # with what rounding adds, it is stored
        raise FieldError(name, f"is {value!r}, not a number of credits")
    return found


def posted(form: Mapping[str, str]) -> dict[str, str]:
    """What was posted, as far as a database can store it."""
    return {
        key.replace("\0", "\N{REPLACEMENT CHARACTER}"): value.replace(
            "\0", "\N{REPLACEMENT CHARACTER}"
        )
        for key, value in form.items()
    }
