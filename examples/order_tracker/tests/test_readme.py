"""The README says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import click
from order_tracker import cli, settings
from order_tracker.api import make_api
from order_tracker.database import Database
from order_tracker.events import Events
from order_tracker.feeder import Feeder
from order_tracker.messages import make_app
from order_tracker.settings import Settings
from order_tracker.tables import metadata

HERE = Path(__file__).parent.parent
README = (HERE / "README.rst").read_text(encoding="utf-8")


def test_it_has_every_variable() -> None:
    code = Path(settings.__file__).read_text(encoding="utf-8")
    told = set(re.findall(r"RTB_[A-Z_]*[A-Z]", README)) - {"RTB_DB", "RTB_BROKER"}
    assert told == set(re.findall(r"\"(RTB_[A-Z_]*[A-Z])\"", code))


def test_its_commands_exist() -> None:
    assert isinstance(cli.main, click.Group)
    for line in re.findall(r"^ +(?:\.venv/bin/)?order-tracker (.+)$", README, re.M):
        words = line.partition("#")[0].split()
        command = cli.main.commands[words[0]]
        options = {option for param in command.params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_it_has_every_path(tmp_path: Path) -> None:
    found = Settings.from_environ({"RTB_DB_URL": f"sqlite:///{tmp_path}/orders.sqlite3"})
    database = Database(found.db_url)
    feeder = Feeder(make_app(found), database, found.box, "test")
    api = make_api(database, feeder, Events(database, 1))
    told = {path.rstrip("/") or "/" for path in re.findall(r"(?:GET|POST) (/[^`? ]*)", README)}
    there = {re.sub(r"<int:order_id>", "<id>", str(rule)) for rule in api.url_map.iter_rules()}
    assert told == {path for path in there if not path.startswith("/board/")}


def test_it_has_every_table() -> None:
    assert all(f"``{name}``" in README for name in metadata.tables)
