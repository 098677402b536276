"""For the tests of applications."""

from __future__ import annotations

from .functional import build_functional_tests as build_functional_tests
from .functional import wait_for as wait_for
