"""The monitor: consume, decode, write, acknowledge."""

from __future__ import annotations

from .monitor import Monitor as Monitor
