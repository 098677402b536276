"""The house's rules: imports point downwards, a producer loads little."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "cadasta.workertoolbox"
FOLDER = ROOT / "cadasta" / "workertoolbox"

#: From the ground up. A module may import modules of lower layers only. The architecture's order,
#: with the helpers that its rooms needed; a folder (``migrations``) counts as one module.
LAYERS = (
    "errors expiring jsontext portable redis_connection stopping urls",
    "failures fitting watch",
    "amqp_transport broker_errors database embedded_file environment followups heartbeats"
    " ledger_values logs monitor_amqp monitor_redis redis_transport result_limits result_prepared"
    " result_values schema sqs_transport topology warm_stop",
    "defaults embedded_store forks handover ledger_queries messages migrations monitor_sqs"
    " result_retries result_writes retries workflow",
    "embedded transports ledger_columns ledger_results probe publishing redaction replacements"
    " result_store outcomes",
    "conf ledger_writes results retention",
    "check_values ledger setup",
    "check_broker check_database cli_output monitor_writer",
    "monitor",
    "checks",
    "testing testing_fixtures",
    "cli",
    "__init__",
)
RANKS = {module: rank for rank, layer in enumerate(LAYERS) for module in layer.split()}

#: Imports upwards, each inside a function, with the reason.
UPWARDS = {
    ("conf", "setup"): "the handler of worker_init sets up an app that was configured by Config",
}

#: Where imports inside functions are the rule: Celery loads these two at every start.
LAZY_MODULES = {"__init__", "cli"}


@dataclass(frozen=True)
class Import:
    """One imported name; ``target`` is the module of ours that it belongs to, if any."""

    name: str
    target: str | None
    line: int
    in_function: bool

    def __str__(self) -> str:
        return f"line {self.line}: {self.name}"


def module_files() -> list[Path]:
    return sorted(FOLDER.rglob("*.py"))


def module_name(file: Path) -> str:
    """The module's name in the table: that of its folder where it lies in one."""
    return file.relative_to(FOLDER).with_suffix("").parts[0]


def imports_of(file: Path) -> Iterator[Import]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    package = (PACKAGE, *file.relative_to(FOLDER).with_suffix("").parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: -node.level]) if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield Import(name, target_of(name), node.lineno, id(node) in inside)


def target_of(name: str) -> str | None:
    """Which module of ours an imported name belongs to."""
    if name != PACKAGE and not name.startswith(f"{PACKAGE}."):
        return None
    first = name.removeprefix(PACKAGE).lstrip(".").partition(".")[0]
    known = first in RANKS or (FOLDER / first).is_dir() or (FOLDER / f"{first}.py").exists()
    return first if first and known else "__init__"


@pytest.mark.parametrize("file", module_files(), ids=lambda file: str(file.relative_to(FOLDER)))
def test_imports_point_downwards(file: Path) -> None:
    module = module_name(file)
    assert module in RANKS, f"{module} has no place in LAYERS: give it one, with a reason"
    wrong = []
    for found in imports_of(file):
        if found.target is None or found.target == module:
            continue
        allowed = found.in_function and (module, found.target) in UPWARDS
        if RANKS.get(found.target, len(LAYERS)) >= RANKS[module] and not allowed:
            wrong.append(str(found))
    assert not wrong, f"{module} imports what is not below it: {wrong}"


@pytest.mark.parametrize("file", module_files(), ids=lambda file: str(file.relative_to(FOLDER)))
def test_imports_in_functions_have_a_reason_beside_them(file: Path) -> None:
    if module_name(file) in LAZY_MODULES:
        return
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    docstring = (ast.get_docstring(ast.parse(text)) or "").lower()
    bare = []
    for found in imports_of(file):
        if f"{found.name.partition('.')[0]} is imported inside" in docstring:
            continue  # One reason for the whole module.
        first = found.line - 1
        while first > 0 and lines[first - 1].lstrip().startswith(("import ", "from ")):
            first -= 1  # One reason may stand above, or in, a block of imports.
        block = lines[max(first - 1, 0) : found.line]
        if found.in_function and not any("#" in line for line in block):
            bare.append(str(found))
    assert not bare, f"imports inside functions without a comment: {bare}"


def test_every_exception_is_still_needed() -> None:
    used = {
        (module_name(file), found.target)
        for file in module_files()
        for found in imports_of(file)
        if found.target and found.target != module_name(file)
    }
    assert used >= UPWARDS.keys()


def test_no_module_stands_twice_in_the_table() -> None:
    assert len(RANKS) == sum(len(layer.split()) for layer in LAYERS)


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
    expected = "[]"
    if module.endswith(".cli"):  # It defines sub-commands, which are Celery's.
        loaded = ast.literal_eval(done.stdout or "[]")
        assert done.returncode == 0, done.stderr
        assert not [name for name in loaded if name.startswith("sqlalchemy")]
        return
    assert done.stdout.strip() == expected, done.stderr
