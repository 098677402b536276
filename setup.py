"""Packaging of cadasta-workertoolbox; a release is ``python setup.py clean dist publish tag``."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from setuptools import Command, find_namespace_packages, setup

ROOT = Path(__file__).resolve().parent
NAME = "cadasta-workertoolbox"


def read_version() -> str:
    """Return ``__version__`` of the facade, its one home, without importing the package."""
    facade = ROOT / "cadasta" / "workertoolbox" / "__init__.py"
    for statement in ast.parse(facade.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__version__"
            for target in statement.targets
        ):
            return str(ast.literal_eval(statement.value))
    raise SystemExit(f"{facade} has no line __version__ = '...'")


VERSION = read_version()


def run(*command: str) -> None:
    """Show a command and run it in the root; end the release where it fails."""
    print("$", " ".join(command), flush=True)
    code = subprocess.call(command, cwd=ROOT)
    if code:
        raise SystemExit(f"{command[0]} failed with exit code {code}")


def git(*arguments: str) -> str:
    """Return what git prints; '' where it fails."""
    done = subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def require_clean_tree(command: str) -> None:
    """End with exit code 1 unless every file here is committed."""
    if git("rev-parse", "--is-inside-work-tree") != "true":
        raise SystemExit(f"{command}: {ROOT} is not a git working tree: release from a clone")
    changes = git("status", "--porcelain")
    if changes:
        raise SystemExit(
            f"{command}: the working tree is dirty. Commit or remove these first:\n{changes}"
        )


def require_module(command: str, module: str) -> None:
    """End with exit code 1 unless a release tool is installed."""
    if find_spec(module) is None:
        raise SystemExit(
            f"{command}: {module} is missing: {sys.executable} -m pip install"
            " -r requirements-deploy.txt"
        )


class ReleaseCommand(Command):
    """A command without options."""

    user_options: ClassVar[list[tuple[str, str, str]]] = []

    def initialize_options(self) -> None:
        """Nothing to set."""

    def finalize_options(self) -> None:
        """Nothing to check."""


class Clean(ReleaseCommand):
    description = "remove build/, dist/ and *.egg-info, nothing else"

    def run(self) -> None:
        for path in (ROOT / "build", ROOT / "dist", *ROOT.glob("*.egg-info")):
            if path.is_dir():
                print(f"removing {path.name}/")
                shutil.rmtree(path)


class Dist(ReleaseCommand):
    description = "build the source archive and the wheel into dist/"

    def run(self) -> None:
        require_module("dist", "build")
        run(sys.executable, "-m", "build", "--sdist", "--wheel", ".")


class Publish(ReleaseCommand):
    description = "check and upload dist/ of this very version (twine's TWINE_* variables apply)"

    def run(self) -> None:
        require_clean_tree("publish")
        require_module("publish", "twine")
        prefix = f"{NAME.replace('-', '_')}-{VERSION}"
        files = [
            str(path)
            for path in (
                ROOT / "dist" / f"{prefix}.tar.gz",
                ROOT / "dist" / f"{prefix}-py3-none-any.whl",
            )
            if path.is_file()
        ]
        if len(files) != 2:
            raise SystemExit(
                f"publish: dist/ lacks an archive or a wheel of {VERSION}: python setup.py dist"
            )
        run(sys.executable, "-m", "twine", "check", "--strict", *files)
        run(sys.executable, "-m", "twine", "upload", *files)


class Tag(ReleaseCommand):
    description = "make the annotated git tag v<version>, and push it to origin if there is one"

    def run(self) -> None:
        require_clean_tree("tag")
        tag = f"v{VERSION}"
        if git("tag", "--list", tag):
            raise SystemExit(f"tag: {tag} exists: raise __version__ in the facade first")
        run("git", "tag", "--annotate", tag, "--message", f"{NAME} {VERSION}")
        if "origin" in git("remote").split():
            run("git", "push", "origin", tag)
        else:
            print(f"No remote named origin. Push the tag by: git push <remote> {tag}")


setup(
    name=NAME,
    version=VERSION,
    description="Every Celery task that is ever scheduled, in your SQL database",
    long_description=(ROOT / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    author="Cadasta",
    url="https://github.com/Cadasta/cadasta-workertoolbox",
    license_expression="AGPL-3.0-or-later",
    license_files=["LICENSE"],
    keywords=["celery", "kombu", "sqs", "rabbitmq", "redis", "monitor", "task", "queue"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Database",
        "Topic :: System :: Distributed Computing",
        "Topic :: System :: Monitoring",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_namespace_packages(include=["cadasta.*"], exclude=["*.__pycache__"]),
    package_data={
        "cadasta.workertoolbox": ["py.typed"],
        "cadasta.workertoolbox.sql.migrations": ["*.mako", "*.ini"],
        "cadasta.workertoolbox.django": ["templates/*/*.html", "static/*/*.css"],
    },
    install_requires=[
        "alembic>=1.18.0",
        "amqp>=5.4.2,<6",
        "billiard>=4.3.2,<5",
        "boto3>=1.35.0",
        "botocore>=1.35.0",
        "celery>=5.7,<6",
        "click>=8.3.1",
        "kombu>=5.7,<6",
        "psycopg2-binary>=2.9.10",
        "pycurl>=7.45.4",
        "rich>=13.9.4",
        "sqlalchemy>=2.0.31,<3",
    ],
    extras_require={
        # Celery and kombu know which versions of their transports' clients they work with.
        "redis": ["celery[redis]>=5.7,<6", "redis"],
        "sqs": ["celery[sqs]>=5.7,<6"],
        "mysql": ["PyMySQL>=1.1.1"],
        "django": ["Django>=5.2"],
        "sentry": ["sentry-sdk>=2.20"],
        # What cadasta.workertoolbox.testing needs in the test suite of an application.
        "test": ["pytest>=8.3"],
    },
    entry_points={
        "celery.result_backends": ["toolbox = cadasta.workertoolbox.results:ToolboxBackend"],
        "celery.commands": [
            "monitor = cadasta.workertoolbox.cli:monitor",
            "tasks = cadasta.workertoolbox.cli:tasks",
            "task = cadasta.workertoolbox.cli:task",
            "check = cadasta.workertoolbox.cli:check",
            "ledger = cadasta.workertoolbox.cli:ledger",
        ],
    },
    cmdclass={"clean": Clean, "dist": Dist, "publish": Publish, "tag": Tag},
)
