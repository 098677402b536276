"""What the README says of speed, measured."""

from __future__ import annotations
