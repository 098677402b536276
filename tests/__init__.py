"""The tests. A package, so that ``tests.services`` is ours and not that of a stray distribution."""

from __future__ import annotations
