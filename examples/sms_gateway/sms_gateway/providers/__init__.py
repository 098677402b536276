"""Providers of SMS: what the gateway asks of one, and the choice by ``SMS_PROVIDER``."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import SettingsError
from ..settings import Settings
from .base import Callback, Inbound, Outbound, Provider, Receipt, Sent

#: Units of the longest text that each provider takes, as :mod:`..segments` counts them. Twilio's is
#: documented (error 21617). Chikka documents none; this is what the gateway has always allowed.
LONGEST_MESSAGES = {"chikka": 1600, "twilio": 1600}

__all__ = [
    "LONGEST_MESSAGES",
    "Callback",
    "Inbound",
    "Outbound",
    "Provider",
    "Receipt",
    "Sent",
    "make_provider",
]


def make_provider(settings: Settings, environ: Mapping[str, str] = os.environ) -> Provider:
    """The provider of these settings.

    Raises:
        SettingsError: there is none of this name, or one of its own settings cannot work.
    """
    if settings.provider == "chikka":
        from .chikka import Chikka  # one provider is loaded, not all

        return Chikka.from_environment(settings, environ)
    if settings.provider == "twilio":
        from .twilio import Twilio

        return Twilio.from_environment(settings, environ)
    raise SettingsError(f"SMS_PROVIDER is {settings.provider!r}: use chikka or twilio.")
