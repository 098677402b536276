"""Which status may follow which."""

from __future__ import annotations

import doctest

from order_tracker import statuses
from order_tracker.statuses import STATUSES, steps_to


def test_the_examples() -> None:
    assert doctest.testmod(statuses).failed == 0


def test_a_report_never_leads_backwards() -> None:
    for current in STATUSES:
        for reported in STATUSES:
            at = current
            for before, after in steps_to(current, reported):
                assert before == at
                assert STATUSES.index(after) > STATUSES.index(before)
                at = after
            assert at in {current, reported}


def test_what_is_pending_or_done_heeds_no_report() -> None:
    for current in ("pending", "success", "error"):
        assert all(steps_to(current, reported) == [] for reported in STATUSES)
