"""What the README claims: ``python -m benchmarks`` prints it, each figure beside its rival."""

from __future__ import annotations
