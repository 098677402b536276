"""The warning about a setting that is kept, but is probably not what was meant."""

from __future__ import annotations


class ConfigWarning(UserWarning):
    """A setting that is kept, but is probably not what was meant."""
