"""Reading rows whose numbers do not come in order."""

from __future__ import annotations

from order_tracker.events import PATIENCE, Cursor


def test_a_row_that_appears_late_is_asked_for() -> None:
    cursor = Cursor(10)
    cursor.see(11, 0)
    cursor.see(14, 0)
    assert (cursor.high, set(cursor.missing), cursor.watermark) == (14, {12, 13}, 11)
    cursor.see(12, 1)
    assert (cursor.high, set(cursor.missing), cursor.watermark) == (14, {13}, 12)


def test_a_gap_that_stays_is_given_up() -> None:
    cursor = Cursor(10)
    cursor.see(12, 0)
    cursor.give_up(PATIENCE - 1)
    assert cursor.watermark == 10
    cursor.give_up(PATIENCE + 1)
    assert (cursor.missing, cursor.watermark) == ({}, 12)


def test_the_beginning_at_the_end_leaves_out_no_open_row() -> None:
    cursor = Cursor.at_end([5, 6, 8], 0)
    assert (cursor.high, set(cursor.missing), cursor.watermark) == (8, {7}, 6)
    assert Cursor.at_end([], 0).watermark == 0
