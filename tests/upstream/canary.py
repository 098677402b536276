"""A row of the table: one private or fragile name of another library, and what is known of it."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Canary:
    """One name of another library that a new release of it may change without notice.

    Attributes:
        name: where it is: ``module:attribute``; ``module:Class.attribute`` for a member.
        known: what it was when our code was written against it: the digest of its source (see
            :func:`present`), its signature, or its type, for each release that was tried.
        reason: what we do with it.
        delete_when: what upstream change would let us delete our code.
        covers: the private names in our code that this row stands for; a private attribute of an
            instance has no place of its own, so the code that sets it is looked at.
        issue: where upstream speaks of it, an issue or a pull request; None where none is known.
        releases: what it may be in further releases, as ``known``.
    """

    name: str
    known: str
    reason: str
    delete_when: str
    covers: tuple[str, ...] = ()
    issue: str | None = None
    releases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


def found(name: str) -> Any:
    """The object of that name.

    Raises:
        ImportError, AttributeError: upstream has it no longer.
    """
    module, _, attributes = name.partition(":")
    value: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        value = inspect.getattr_static(value, attribute, None) or getattr(value, attribute)
    return value


def present(name: str) -> str:
    """What can be told of it today: a digest of its source, else its type.

    The source is that of the file: Sentry, for one, puts functions of its own in the place of some.
    """
    value = found(name)
    source = _source(name)
    return f"source {digest(source)}" if source else f"type {type(value).__name__}"


def _source(name: str) -> str | None:
    """The definition of a function or a class, with its decorators; None of anything else."""
    module, _, attributes = name.partition(":")
    text = inspect.getsource(importlib.import_module(module))
    node: ast.AST | None = ast.parse(text)
    for attribute in attributes.split("."):
        node = next(
            (
                one
                for one in getattr(node, "body", ())
                if isinstance(one, ast.FunctionDef | ast.ClassDef) and one.name == attribute
            ),
            None,
        )
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return None
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def digest(source: str) -> str:
    """The first digits of a hash of some code, whatever its indentation and its comments."""
    lines = (line.strip() for line in source.splitlines())
    text = "\n".join(line for line in lines if line and not line.startswith("#"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
