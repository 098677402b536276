"""The README says what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import docutils.core
from docutils.utils import Reporter

from cadasta.workertoolbox.cli import commands as cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.rst").read_text(encoding="utf-8")


def settings_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("settings", ROOT / "docs" / "settings.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_settings_are_those_of_the_code() -> None:
    assert settings_module().updated(README) == README, "run: python docs/settings.py"


def test_each_option_of_a_command_in_the_readme_exists() -> None:
    names = ("tasks", "task", "monitor", "check")
    commands = {name: getattr(cli, name) for name in names}
    commands.update({f"ledger {name}": command for name, command in cli.ledger.commands.items()})
    for line in re.findall(r"celery -A exporter ((?!worker).+)", README):
        words = line.partition("#")[0].replace("``", " ").split()
        name = " ".join(words[:2]) if words[0] == "ledger" else words[0]
        options = {option for param in commands[name].params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_the_documents_are_clean_restructured_text() -> None:
    for name in ("README.rst", "CHANGELOG.rst", "docs/design.rst", "docs/waits.rst"):
        docutils.core.publish_doctree(
            (ROOT / name).read_text(encoding="utf-8"),
            settings_overrides={"halt_level": Reporter.WARNING_LEVEL, "report_level": 5},
        )
