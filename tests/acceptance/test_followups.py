"""``extract_followups`` in a real worker."""

from __future__ import annotations

import pytest

from tests.acceptance.deployment import Deployment


@pytest.mark.parametrize("deployment", ["embedded"], indirect=True)
def test_followups_run_after_the_subtask(deployment: Deployment) -> None:
    deployment.start("worker", "one", "--include", "followups")
    deployment.produce("followups", 0, script="produce_followups.py")
    expected = [
        ["chained", "20"],
        ["chained-again", "20"],
        ["error", "noted"],
        ["linked", "10"],
    ]
    deployment.wait_until(lambda: len(deployment.notes("followups")) >= 4, "the follow-ups")
    assert sorted(deployment.notes("followups")) == expected
    # nothing of it ran twice: the task that handed it on has not kept it
    names = sorted(line[1] for line in deployment.notes("ran"))
    assert names.count("export.note_result") == 3
