"""Feeds work units to a broker, a bounded number at a time, and tracks each until it is done."""

from __future__ import annotations
