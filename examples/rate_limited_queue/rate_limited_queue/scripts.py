"""The Lua scripts, each with what all of them begin with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Script:
    """A script's text and its SHA-1, by which Redis knows it."""

    source: bytes
    sha: bytes


@cache
def script(name: str) -> Script:
    """Return the script ``lua/<name>.lua``."""
    folder = resources.files(__package__) / "lua"
    source = (folder / "common.lua").read_bytes() + (folder / f"{name}.lua").read_bytes()
    digest = hashlib.sha1(source, usedforsecurity=False).hexdigest()
    return Script(source, digest.encode())


def base_key(prefix: str, queue_type: str) -> str:
    """Return how all keys of a type begin. The braces keep them on one node of a cluster."""
    return f"{prefix}:{{{queue_type}}}:"


def types_key(prefix: str) -> str:
    """Return the key of the types that may have jobs, each with when it was last seen (s)."""
    return f"{prefix}:types"
