"""Durations and moments as people write them, such as ``2h`` and ``2026-05-31T18:30``."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from fractions import Fraction

#: Microseconds by unit, the largest first.
_UNITS = {
    unit: timedelta(seconds=seconds) // timedelta(microseconds=1)
    for unit, seconds in (("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def read_duration(text: str) -> timedelta:
    """Return the duration that ``90s``, ``15m``, ``2h``, ``7d`` or ``4w`` means.

    Raises:
        ValueError: it is none, or longer than there have been years; the message says so.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration: write 90s, 15m, 2h, 7d or 4w.")
    try:
        duration = timedelta(microseconds=round(Fraction(match[1]) * _UNITS[match[2]]))
        datetime.now(timezone.utc) - duration
    except (OverflowError, ValueError):  # the latter of more digits than Python reads
        raise ValueError(f"{text!r} is longer than there have been years.") from None
    return duration


def write_duration(duration: timedelta) -> str:
    """Return the shortest text that :func:`read_duration` reads as ``duration``."""
    microseconds = duration // timedelta(microseconds=1)
    for unit, size in _UNITS.items():
        if microseconds and microseconds % size == 0:
            return f"{microseconds // size}{unit}"
    seconds, rest = divmod(microseconds, _UNITS["s"])
    return f"{seconds}.{rest:06}".rstrip("0").rstrip(".") + "s"


def read_moment(text: str) -> datetime:
    """Return the moment, in UTC, that an ISO 8601 time means, or a duration before now.

    A time that names no zone is in UTC.

    Raises:
        ValueError: it is neither, or out of the calendar; the message says so.
    """
    if _DURATION.fullmatch(text.strip()):
        return datetime.now(timezone.utc) - read_duration(text)
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a time (UTC), such as 2026-05-31T18:30, nor a duration, such as "
            "15m, 2h or 7d."
        ) from None
    if moment.tzinfo is None:
        return moment.replace(tzinfo=timezone.utc)
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError(f"{text!r} is out of the calendar.") from None


def write_moment(moment: datetime) -> str:
    """Return an aware moment as ISO 8601 in UTC, without a sign that a URL would take for space."""
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
