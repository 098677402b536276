"""The types of the public API, pinned: mypy checks this file, and running it checks the names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cadasta.workertoolbox as toolbox
from cadasta.workertoolbox import Config, ConfigError, Ledger, LedgerError, Query, ToolboxError

if TYPE_CHECKING:
    from typing_extensions import assert_type

    from cadasta.workertoolbox.ledger.model import Page, Summary, Task, Workflow

    def check(ledger: Ledger, config: Config, task: Task, app: Any) -> None:
        assert_type(ledger.get("id"), Task | None)
        assert_type(ledger.find(state="FAILURE", limit=5, headers={"a": 1}), Page)
        query = Query(states=["FAILURE"], names="export.*", headers={"a": 1})
        assert_type(query, Query)
        assert_type(query.states, tuple[str, ...])
        assert_type(query.since, datetime | None)
        assert_type(query.unfinished_for, timedelta | None)
        assert_type(query.headers, Mapping[str, Any])
        assert_type(query.to_params(), dict[str, str])
        assert_type(Query.from_params({"states": "FAILURE"}), Query)
        assert_type(ledger.find(query, limit=5), Page)
        assert_type(ledger.count(query), int)
        assert_type(ledger.iterate(query, batch=5), Iterator[Task])
        assert_type(ledger.workflow("id"), Workflow | None)
        assert_type(ledger.summary(), Summary)
        assert_type(ledger.unfinished(timedelta(hours=1)), Page)
        assert_type(ledger.prune(timedelta(days=1)), int)
        assert_type(Ledger.from_app(app), Ledger)
        assert_type(Ledger.from_app(app, upgrade=False), Ledger)
        assert_type(ledger.upgrade(), list[str])
        assert_type(config.to_dict(), dict[str, Any])
        assert_type(Config.local(["export"]), Config)
        assert_type(toolbox.setup_app(app), None)
        assert_type(toolbox.extract_followups(app), dict[str, Any])
        assert_type(task.published_at, datetime)
        assert_type(task.headers, dict[str, Any])
        assert_type(task.waited, float | None)
        assert_type(ledger.summary().states, dict[str, int])
        assert_type(ledger.summary().names[0].states, Mapping[str, int])


def test_the_facade_has_what_it_names(tmp_path: Path) -> None:
    assert {name for name in toolbox.__all__ if getattr(toolbox, name) is None} == set()
    assert sorted(dir(toolbox)) == sorted(toolbox.__all__)
    assert issubclass(ConfigError, ToolboxError) and issubclass(LedgerError, ToolboxError)
    assert isinstance(Config.local(["export"], tmp_path), dict)
