"""What goes into the wheel, and that nothing is released from a dirty tree."""

from __future__ import annotations

import ast
import email.message
import email.parser
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cadasta" / "workertoolbox"
#: What Python and the tools leave beside the sources.
IGNORED = shutil.ignore_patterns("__pycache__", ".*")
RELEASE_FILES = ("setup.py", "pyproject.toml", "README.rst", "LICENSE", "MANIFEST.in", ".gitignore")

pytestmark = pytest.mark.xdist_group("packaging")


def copy_tree(target: Path) -> Path:
    """Copy what a release is made of: a build writes into the folder that it builds."""
    shutil.copytree(ROOT / "cadasta", target / "cadasta", ignore=IGNORED)
    (target / "tests").mkdir()
    (target / "examples" / "one").mkdir(parents=True)
    (target / "tests" / "test_x.py").write_text("")
    (target / "examples" / "one" / "tasks.py").write_text("")
    for name in RELEASE_FILES:
        shutil.copy(ROOT / name, target / name)
    return target


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built without isolation, hence without a network."""
    folder = copy_tree(tmp_path_factory.mktemp("release"))
    done = run(folder, sys.executable, "-m", "build", "--wheel", "--no-isolation", ".")
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive


def read(wheel: zipfile.ZipFile, name: str) -> str:
    [path] = [one for one in wheel.namelist() if one.endswith(f".dist-info/{name}")]
    assert wheel.filename is not None
    with zipfile.ZipFile(wheel.filename) as archive:
        return archive.read(path).decode()


def version() -> str:
    text = (FOLDER / "__init__.py").read_text()
    found = re.search(r"^__version__ = (.*)$", text, re.M)
    assert found
    return str(ast.literal_eval(found[1]))


def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    return email.parser.Parser().parsestr(read(wheel, "METADATA"))


def test_wheel_holds_every_module_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {
        str(path.relative_to(ROOT))
        for path in FOLDER.rglob("*")
        if path.is_file()
        and not any(
            part == "__pycache__" or part[0] == "." for part in path.relative_to(ROOT).parts
        )
    }
    assert packed == sources
    assert "cadasta/workertoolbox/py.typed" in packed
    assert "cadasta/workertoolbox/sql/migrations/__init__.py" in packed
    assert "cadasta/__init__.py" not in packed


def test_wheel_metadata(wheel: zipfile.ZipFile) -> None:
    data = metadata(wheel)
    assert data["Name"] == "cadasta-workertoolbox"
    assert data["Version"] == version()
    assert data["License-Expression"] == "AGPL-3.0-or-later"
    assert data["Requires-Python"] == ">=3.10"
    assert "GNU AFFERO GENERAL PUBLIC LICENSE" in read(wheel, "licenses/LICENSE")
    required = {
        re.split(r"[<>=\[; ]", requirement)[0].lower()
        for requirement in data.get_all("Requires-Dist", [])
        if "extra ==" not in requirement
    }
    assert required >= {"celery", "kombu", "sqlalchemy", "psycopg2-binary", "boto3", "pycurl"}
    assert set(data.get_all("Provides-Extra", [])) >= {"redis", "sqs", "sentry", "test"}


def test_wheel_entry_points(wheel: zipfile.ZipFile) -> None:
    parser = ConfigParser()
    parser.read_string(read(wheel, "entry_points.txt"))
    commands = ("monitor", "tasks", "task", "check", "ledger")
    assert dict(parser["celery.commands"]) == {
        name: f"cadasta.workertoolbox.cli:{name}" for name in commands
    }
    assert dict(parser["celery.result_backends"]) == {
        "toolbox": "cadasta.workertoolbox.results:ToolboxBackend"
    }


def test_each_import_is_of_a_declared_dependency(wheel: zipfile.ZipFile) -> None:
    """Not only of a dependency's dependency, which may go without notice."""
    declared = {
        re.split(r"[<>=!~\[; ]", requirement)[0].lower()
        for requirement in metadata(wheel).get_all("Requires-Dist", [])
    }
    owners = packages_distributions()
    undeclared = {
        name: files
        for name, files in imported().items()
        if declared.isdisjoint(owner.lower() for owner in owners.get(name, [name]))
    }
    assert not undeclared


def imported() -> dict[str, set[str]]:
    """The top-level packages of others that any of our modules imports, and where."""
    places: dict[str, set[str]] = {}
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            for module in modules:
                name = module.partition(".")[0]
                if name not in sys.stdlib_module_names | {"cadasta"}:
                    places.setdefault(name, set()).add(str(path.relative_to(FOLDER)))
    return places


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    done = run(folder, "git", *identity, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clean clone of a repository of its own; its origin lies beside it."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.org")
    folder = tmp_path / "source"
    folder.mkdir()
    copy_tree(folder)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "All")
    git(tmp_path, "clone", "--quiet", "--bare", "source", "origin.git")
    git(tmp_path, "clone", "--quiet", "origin.git", "clone")
    return tmp_path / "clone"


def setup_py(folder: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "setup.py", "--quiet", *commands)


@pytest.mark.parametrize("command", ["publish", "tag"])
@pytest.mark.parametrize("change", ["edited", "new"])
def test_release_refuses_a_dirty_tree(clone: Path, command: str, change: str) -> None:
    name = {"edited": "README.rst", "new": "notes.txt"}[change]
    with (clone / name).open("a") as file:
        file.write("more\n")
    done = setup_py(clone, command)
    assert done.returncode == 1
    assert f"{command}: the working tree is dirty" in done.stderr
    assert name in done.stderr
    assert git(clone, "tag", "--list") == ""


@pytest.mark.parametrize("command", ["publish", "tag"])
def test_release_refuses_a_folder_that_is_no_clone(clone: Path, command: str) -> None:
    shutil.rmtree(clone / ".git")
    done = setup_py(clone, command)
    assert done.returncode == 1
    assert "is not a git working tree" in done.stderr


def test_publish_wants_the_archives_of_this_version(clone: Path) -> None:
    (clone / "dist").mkdir()
    (clone / "dist" / "cadasta_workertoolbox-0.0.1.tar.gz").touch()
    done = setup_py(clone, "publish")
    assert done.returncode == 1
    assert "python setup.py dist" in done.stderr or "requirements-deploy.txt" in done.stderr


def test_tag_is_annotated_and_pushed_once(clone: Path) -> None:
    assert setup_py(clone, "tag").returncode == 0
    tag = f"v{version()}"
    assert git(clone, "cat-file", "-t", tag) == "tag"
    assert git(clone.parent / "origin.git", "tag", "--list") == tag
    again = setup_py(clone, "tag")
    assert again.returncode == 1
    assert f"{tag} exists" in again.stderr


def test_clean_removes_what_builds_leave_and_nothing_else(clone: Path) -> None:
    for name in ("build", "dist", "cadasta_workertoolbox.egg-info"):
        (clone / name).mkdir()
        (clone / name / "file").touch()
    before = git(clone, "ls-files")
    done = setup_py(clone, "clean")
    assert done.returncode == 0, done.stderr
    assert [p.name for p in clone.iterdir() if p.name in {"build", "dist"} or "egg" in p.name] == []
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "ls-files") == before
