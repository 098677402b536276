"""Measurements beside rivals: python -m benchmarks."""

from __future__ import annotations
