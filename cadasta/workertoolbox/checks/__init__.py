"""What can be wrong with a deployment, each with its remedy."""

from __future__ import annotations

from .run import run_checks as run_checks
