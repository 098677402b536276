"""The house's rules that import-linter (``pyproject.toml``) cannot keep."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "cadasta.workertoolbox"
FOLDER = ROOT / "cadasta" / "workertoolbox"

#: Where imports inside functions are the rule: Celery loads these two at every start.
LAZY_MODULES = {FOLDER / "__init__.py", FOLDER / "cli" / "commands.py"}
#: Alembic loads these by their path: in them, relative imports lead nowhere.
STEPS = FOLDER / "sql" / "migrations" / "versions"

MODULES = sorted(FOLDER.rglob("*.py"))
_each_module = pytest.mark.parametrize(
    "file", MODULES, ids=lambda file: str(file.relative_to(FOLDER))
)


def lazy_imports(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports inside functions."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    yield node


@_each_module
def test_a_module_says_its_reason_first(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    first = (ast.get_docstring(tree) or "").partition("\n")[0]
    assert first.endswith("."), f"its first line is no sentence: {first!r}"


@_each_module
def test_our_own_modules_are_imported_relatively(file: Path) -> None:
    if STEPS in file.parents:
        return
    text = file.read_text(encoding="utf-8")
    absolute = [
        node.lineno
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE)
    ]
    assert not absolute, f"lines {absolute}"


@_each_module
def test_imports_in_functions_have_a_reason_beside_them(file: Path) -> None:
    if file in LAZY_MODULES:
        return
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    tree = ast.parse(text)
    docstring = (ast.get_docstring(tree) or "").lower()
    bare = []
    for node in lazy_imports(tree):
        module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        if f"{(module or '').partition('.')[0]} is imported inside" in docstring:
            continue  # One reason for the whole module.
        first = node.lineno - 1
        while first > 0 and lines[first - 1].lstrip().startswith(("import ", "from ")):
            first -= 1  # One reason may stand above, or in, a block of imports.
        if not any("#" in line for line in lines[max(first - 1, 0) : node.lineno]):
            bare.append(node.lineno)
    assert not bare, f"imports inside functions without a comment: lines {bare}"


#: Names of brokers and of their drivers, which nobody outside ``brokers/`` asks for.
KINDS = frozenset({"amqp", "redis", "sqs", "embedded"})
DRIVER_NAMES = frozenset({"driver_type", "driver_name", "transport_cls"})


@_each_module
def test_nobody_asks_for_the_kind_of_a_broker(file: Path) -> None:
    if FOLDER / "brokers" in file.parents:
        return
    tree = ast.parse(file.read_text(encoding="utf-8"))
    asking = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.Match | ast.Dict):
            words = {word.value for word in ast.walk(node) if isinstance(word, ast.Constant)}
            asking += [node.lineno] if words & KINDS else []
        elif isinstance(node, ast.Attribute) and node.attr in DRIVER_NAMES:
            asking.append(node.lineno)
    assert not asking, f"lines {asking}: let brokers/broker.py answer"


def test_the_namespace_package_has_no_init() -> None:
    assert not (ROOT / "cadasta" / "__init__.py").exists()


@pytest.mark.parametrize("module", [PACKAGE, f"{PACKAGE}.conf", f"{PACKAGE}.cli"])
def test_import_loads_neither_sqlalchemy_nor_the_command_line(module: str) -> None:
    program = (
        f"import sys, {module}\n"
        "print([name for name in sys.modules if name.startswith(('sqlalchemy', 'celery.bin'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    loaded = ast.literal_eval(done.stdout)
    if module.endswith(".cli"):  # It defines sub-commands, which are Celery's.
        loaded = [name for name in loaded if name.startswith("sqlalchemy")]
    assert loaded == []
