"""Fixtures that the unit tests of the embedded broker share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded_broker import Connect, connections


@pytest.fixture
def broker(tmp_path: Path) -> Path:
    """The path of a broker's file, not made yet."""
    return tmp_path / "broker.sqlite3"


@pytest.fixture
def connect(broker: Path) -> Iterator[Connect]:
    """Makes connections to that file; they are closed after the test."""
    with connections(broker) as make:
        yield make
