"""The result backend, at the address that Celery's entry point names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backend import ToolboxBackend as ToolboxBackend


def __getattr__(name: str) -> Any:
    if name != "ToolboxBackend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .backend import ToolboxBackend  # a ledger needs other rooms of this folder alone

    return ToolboxBackend
