"""The fixtures' former address, for ``pytest_plugins``."""

from __future__ import annotations

from .testing.fixtures import *  # noqa: F403
