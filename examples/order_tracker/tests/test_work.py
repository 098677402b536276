"""The work of an agent."""

from __future__ import annotations

import pytest
from order_tracker.errors import SettingError
from order_tracker.settings import Settings
from order_tracker.work import Unit, load_work, random_outcome, words_of


def failed(settings: Settings, attempt: int = 1) -> list[int]:
    """Which of 400 units fail."""
    found = []
    for order_id in range(400):
        try:
            random_outcome(Unit(order_id, attempt, 0, {}), settings)
        except RuntimeError:
            found.append(order_id)
    return found


def settings_of(**variables: str) -> Settings:
    """Settings for work that takes no time."""
    return Settings.from_environ({"RTB_WORK_SECONDS": "0", **variables})


def test_the_rate_of_errors() -> None:
    assert failed(settings_of(RTB_ERROR_RATE="0")) == []
    assert len(failed(settings_of(RTB_ERROR_RATE="1"))) == 400
    assert 60 < len(failed(settings_of(RTB_ERROR_RATE="0.25", RTB_SEED="1"))) < 140


def test_a_seed_repeats_the_outcomes_and_a_retry_has_its_own() -> None:
    seeded = settings_of(RTB_ERROR_RATE="0.5", RTB_SEED="1")
    assert failed(seeded) == failed(seeded)
    assert failed(seeded) != failed(seeded, attempt=2)
    assert failed(seeded) != failed(settings_of(RTB_ERROR_RATE="0.5", RTB_SEED="2"))
    unseeded = settings_of(RTB_ERROR_RATE="0.5")
    assert failed(unseeded) != failed(unseeded)


def test_the_function_is_found_by_its_name() -> None:
    assert load_work("order_tracker.work:random_outcome") is random_outcome
    for name in ("order_tracker.work", "order_tracker.work:nothing", "no.such:thing", ":x"):
        with pytest.raises(SettingError, match="RTB_WORK"):
            load_work(name)
    with pytest.raises(SettingError, match="no function"):
        load_work("order_tracker.work:annotations")


def test_an_error_without_words_has_a_kind() -> None:
    class Wordless(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert words_of(ValueError("a")) == "ValueError: a"
    assert words_of(Wordless()) == "Wordless"
