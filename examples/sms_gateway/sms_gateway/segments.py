"""How long a text is for a provider, and how many messages it is billed as. Pure functions.

A text of the signs of GSM 03.38 is sent as septets, of which some signs take two; with any other
sign, all of it is sent as UCS-2, where what is not in the basic plane, as most emoji, takes two
units. One message has 160 septets or 70 units; a longer text is cut into parts of 153 or 67.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

#: The signs of GSM 03.38 that take one septet, and those that take two.
GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENSION = frozenset("\f^{}\\[~]|€")
#: Units of a single message, and of each part of a longer one.
SINGLE = {"GSM-7": 160, "UCS-2": 70}
PART = {"GSM-7": 153, "UCS-2": 67}
#: What tells that a text was cut.
CUT = "..."


@dataclass(frozen=True)
class Size:
    """What a text takes."""

    #: ``GSM-7`` or ``UCS-2``.
    encoding: str
    #: Septets, or units of 16 bits.
    units: int
    #: Messages that it is sent, and billed, as.
    segments: int


def measure(message: str) -> Size:
    """What a text takes; an empty one has one segment."""
    encoding = encoding_of(message)
    costs = [_cost(sign, encoding) for sign in message]
    total = sum(costs)
    if total <= SINGLE[encoding]:
        return Size(encoding, total, 1)
    segments, room = 1, PART[encoding]
    for cost in costs:  # a sign of two is not cut
        if cost > room:
            segments, room = segments + 1, PART[encoding]
        room -= cost
    return Size(encoding, total, segments)


def encoding_of(message: str) -> str:
    """``GSM-7``, or ``UCS-2`` where a sign asks for it."""
    return "GSM-7" if GSM.union(GSM_EXTENSION).issuperset(message) else "UCS-2"


def shorten(message: str, longest: int) -> str:
    """A text that takes ``longest`` units at most: cut between signs as people see them, marked.

    Args:
        message: any text.
        longest: units, of septets or UCS-2 as the text is; more than the mark takes.
    """
    encoding = encoding_of(message)
    if sum(_cost(sign, encoding) for sign in message) <= longest:
        return message
    end, room = 0, longest - len(CUT)
    for sign in message:
        room -= _cost(sign, encoding)
        if room < 0:
            break
        end += 1
    while end and (_joins(message[end]) or message[end - 1] == "\N{ZERO WIDTH JOINER}"):
        end -= 1
    return message[:end].rstrip() + CUT


def _cost(sign: str, encoding: str) -> int:
    is_long = sign in GSM_EXTENSION if encoding == "GSM-7" else ord(sign) > 0xFFFF
    return 2 if is_long else 1


def _joins(sign: str) -> bool:
    is_modifier = "\U0001f3fb" <= sign <= "\U0001f3ff"  # of an emoji's skin
    return is_modifier or unicodedata.category(sign) in ("Mn", "Mc", "Me", "Cf")
