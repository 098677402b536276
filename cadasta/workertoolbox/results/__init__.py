"""The result backend."""

from __future__ import annotations

from .backend import ToolboxBackend as ToolboxBackend
