"""``Config``: the settings of Celery, from arguments, environment and defaults."""

from __future__ import annotations

from .config import Config as Config
from .doubts import ConfigWarning as ConfigWarning
