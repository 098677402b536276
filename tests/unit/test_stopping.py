"""The grace of a worker that stops."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cadasta.workertoolbox.plain import stopping

GRACE = 0.5


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker that was asked to stop longer ago than its grace."""
    monkeypatch.setattr(stopping, "GRACE", GRACE)
    stopping.prepare()
    assert stopping.since() is None
    stopping.announce()
    time.sleep(GRACE + 0.1)
    yield
    stopping.prepare()


@pytest.mark.usefixtures("stopped")
def test_a_wait_that_begins_after_the_stop_has_the_whole_grace() -> None:
    start = time.monotonic()
    assert not stopping.is_over(start)
    assert stopping.sleep(0.1, start)
    assert not stopping.sleep(10, start)
    assert GRACE <= time.monotonic() - start < 5
    assert stopping.is_over(start)


@pytest.mark.usefixtures("stopped")
def test_a_wait_that_was_under_way_has_had_it() -> None:
    assert stopping.is_over(time.monotonic() - 60)


def test_nothing_is_over_in_a_worker_that_goes_on() -> None:
    stopping.prepare()
    assert not stopping.is_over(0.0)
    assert stopping.sleep(0.01, 0.0)
