"""The OpenAPI document."""

from __future__ import annotations

from typing import Any


def document() -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": "rate-limited-queue", "version": "1"},
        "paths": {},
    }
