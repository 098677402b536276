"""The schema's steps on SQLite, and the packaging of the steps."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from cadasta.workertoolbox.errors import LedgerError
from cadasta.workertoolbox.ledger.ledger import Ledger
from cadasta.workertoolbox.sql import migrations
from cadasta.workertoolbox.sql.engines import make_engine
from tests.ledger_contract import record
from tests.migration_contract import MigrationContract


class TestSQLite(MigrationContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'ledger.db'}"


def test_head_is_the_newest_step() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert script.get_heads() == [migrations.HEAD]
    names = [step.revision for step in script.walk_revisions()]
    assert names == sorted(names, reverse=True)  # a newer version must compare as greater
    assert all(len(name) <= 32 for name in names)  # the version table's column


def test_steps_can_be_imported() -> None:
    folder = Path(migrations.__file__).parent / "versions"
    for path in folder.glob("step_*.py"):
        step = importlib.import_module(f"cadasta.workertoolbox.sql.migrations.versions.{path.stem}")
        assert path.stem == f"step_{step.revision}"
        with pytest.raises(NotImplementedError):
            step.downgrade()


def test_reading_a_read_only_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger(f"sqlite:///{path}") as ledger:
        ledger.record([record("a")])
    with Ledger(f"sqlite:///file:{path}?mode=ro&uri=true") as ledger:
        assert ledger.get("a") is not None
        with pytest.raises(LedgerError, match="role lacks a right"):
            ledger.record([record("b")])


def test_a_read_only_database_without_tables(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    engine = make_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE mine (id integer)"))
    engine.dispose()
    engine = make_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(LedgerError, match="ledger upgrade"):
        migrations.upgrade(engine)
    engine.dispose()
