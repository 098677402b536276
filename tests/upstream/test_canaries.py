"""A new release of another library fails here, in one place, not where our code relies on it."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import cadasta.workertoolbox

from .canary import Canary, present
from .table import CANARIES

FOLDER = Path(__file__).resolve().parents[2] / "cadasta" / "workertoolbox"
PREFIX = "cadasta.workertoolbox."

#: Underscores that are promises all the same: of named tuples, and of Python's own classes.
PUBLIC = frozenset({"_replace", "_asdict", "_fields", "_abc_impl", "_is_protocol"})


@pytest.mark.parametrize("canary", CANARIES, ids=str)
def test_upstream_is_as_it_was(canary: Canary) -> None:
    """On failure: read what changed, and whether our code still holds; then note the new value."""
    now = present(canary.name)
    assert now in (canary.known, *canary.releases), (
        f"{canary.name} is now {now!r}. We rely on it: {canary.reason}. "
        f"Our code can go when: {canary.delete_when}. Upstream's issue: {canary.issue or 'none'}."
    )


def test_issues_are_addresses_of_upstreams() -> None:
    known = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/[0-9]+")
    others = [canary for canary in CANARIES if canary.issue and not known.fullmatch(canary.issue)]
    assert not others


def test_each_private_name_of_others_has_a_row() -> None:
    covered = {name for canary in CANARIES for name in canary.covers} | PUBLIC
    missing = {name: where for name, where in _private_names() if name not in covered}
    missing |= {name: where for name, where in _overridden() if name not in covered}
    assert not missing, f"no row in tests/upstream/table.py: {missing}"


def test_no_row_is_left_over() -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in FOLDER.rglob("*.py"))
    words = set(re.findall(r"\w+", code))
    covered = {name for canary in CANARIES for name in canary.covers}
    left = {name for name in covered if name.rpartition(".")[2] not in words}
    assert not left, f"nothing touches these any more: {left}"


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted(FOLDER.rglob("*.py")):
        yield file, ast.parse(file.read_text(encoding="utf-8"))


def _own_names() -> set[str]:
    names: set[str] = set()
    for _, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                    names.add(node.attr)
    return names


def _private_names() -> Iterator[tuple[str, str]]:
    """Private attributes that nothing of ours defines, and private names that are imported."""
    own = _own_names()
    for file, tree in _trees():
        place = str(file.relative_to(FOLDER))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                name = node.attr
                if name.startswith("_") and not name.startswith("__") and name not in own:
                    yield name, f"{place}:{node.lineno}"
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                if any(part.startswith("_") for part in node.module.split(".")[1:]):
                    yield node.module, f"{place}:{node.lineno}"
                for alias in node.names:
                    if alias.name.startswith("_") and node.module != "__future__":
                        yield f"{node.module}.{alias.name}", f"{place}:{node.lineno}"


def _overridden() -> Iterator[tuple[str, str]]:
    """Private methods of other libraries' classes that classes of ours replace."""
    for module in pkgutil.walk_packages(cadasta.workertoolbox.__path__, PREFIX):
        # Migrations; and the room for Django, whose models load in a configured project alone.
        if ".versions." in module.name or module.name.startswith(f"{PREFIX}django"):
            continue
        for cls in vars(importlib.import_module(module.name)).values():
            if not inspect.isclass(cls) or cls.__module__ != module.name:
                continue
            for name in vars(cls):
                if name.startswith("_") and not name.startswith("__"):
                    others = (base for base in cls.__mro__[1:] if name in vars(base))
                    if any(not base.__module__.startswith("cadasta.") for base in others):
                        yield name, f"{module.name}.{cls.__name__}"
