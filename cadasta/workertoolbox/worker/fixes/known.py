"""What a workaround does where Celery is not as it knows it: it says so, and steps aside."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import celery

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workaround:
    """A workaround of Celery.

    Its methods look at what it needs of Celery. They log a warning where that is not there.

    Attributes:
        without: what happens to the user without it, as the end of a sentence.
    """

    without: str

    def has(self, part: object, name: str, *attributes: str) -> bool:
        """Tell whether ``part``, whose name is ``name``, has all these attributes."""
        missing = [attribute for attribute in attributes if not hasattr(part, attribute)]
        if missing:
            self.warn(f"{name} has no {', '.join(missing)}")
        return not missing

    def takes(self, function: Any, name: str, *parameters: str) -> bool:
        """Tell whether ``function``, whose name is ``name``, names all these parameters."""
        try:
            taken = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            self.warn(f"{name} is no function")
            return False
        known = {one.name for one in taken if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
        missing = [parameter for parameter in parameters if parameter not in known]
        # One that names none at all is a wrapper, such as those of tracers.
        if known and missing:
            self.warn(f"{name} takes no {', '.join(missing)}")
        return not (known and missing)

    def find(self, module: str, name: str) -> Any:
        """Return what is called ``name`` in ``module``, or None."""
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            self.warn(f"there is no {module}.{name}")
            return None

    @contextmanager
    def stepping_aside(self) -> Iterator[None]:
        """Within it, what is missing in Celery ends the block, and nothing more."""
        try:
            yield
        except (AttributeError, KeyError, TypeError) as exc:
            self.warn(f"{type(exc).__name__}: {exc}")

    def warn(self, difference: str) -> None:
        """Log that Celery differs, and what that means."""
        logger.warning(
            "Celery %s is not as a workaround knows it: %s. Until a newer cadasta-workertoolbox "
            "knows it, %s",
            celery.__version__,
            difference,
            self.without,
        )
