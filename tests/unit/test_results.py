"""The result backend on SQLite, and the errors of its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery
from celery.exceptions import BackendStoreError

from cadasta.workertoolbox import ConfigError, LedgerError
from cadasta.workertoolbox.results.backend import reason_not_stored
from tests.result_contract import ResultContract


class TestSQLite(ResultContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'results.db'}"


def test_a_url_that_names_no_database() -> None:
    app = Celery("none", backend="toolbox://somewhere", set_as_current=False)
    with pytest.raises(ConfigError, match=r"write it as toolbox\+postgresql://"):
        app.backend  # noqa: B018
    app = Celery("other", backend="toolbox+oracle://u:secret@h/d", set_as_current=False)
    with pytest.raises((ConfigError, LedgerError)) as caught:
        app.backend  # noqa: B018
    assert "secret" not in str(caught.value)


def test_the_reason_of_a_failure_that_is_not_stored_is_the_databases() -> None:
    missing = LedgerError("the result tables are missing")
    try:
        raise ValueError("the task's own")
    except ValueError:
        with pytest.raises(LedgerError) as caught:
            raise missing from None
    assert reason_not_stored(caught.value) is missing

    try:
        raise missing
    except LedgerError:
        with pytest.raises(BackendStoreError) as celerys:
            raise BackendStoreError("failed to store result on the backend") from None
    assert reason_not_stored(celerys.value) is missing
