"""What an agent does with a unit. Name a function of yours in ``RTB_WORK`` to replace it."""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import SettingError
from .settings import Settings


@dataclass(frozen=True)
class Unit:
    """A unit in an agent's hands.

    Args:
        order_id: its id in the table ``orders``.
        attempt: 1, and one more for each retry.
        priority: as given when it was added.
        payload: as given when it was added.
    """

    order_id: int
    attempt: int
    priority: int
    payload: dict[str, Any]


#: Takes the unit and the settings. Whatever it raises makes the unit an ``error``; what it returns,
#: if anything, is kept as the detail of ``success``. An agent that dies runs it again, so it has to
#: bear that.
Work = Callable[[Unit, Settings], object]


def random_outcome(unit: Unit, settings: Settings) -> None:
    """Take ``RTB_WORK_SECONDS``, then fail at random, in ``RTB_ERROR_RATE`` of the cases.

    With ``RTB_SEED``, the outcome of each unit and attempt is always the same.

    Raises:
        RuntimeError: the random error.
    """
    time.sleep(settings.work_seconds)
    seed = None if settings.seed is None else f"{settings.seed}/{unit.order_id}/{unit.attempt}"
    if random.Random(seed).random() < settings.error_rate:  # noqa: S311 - no secret
        raise RuntimeError("random error")


def words_of(error: Exception) -> str:
    """An error's kind and text; its kind alone where its text cannot be had."""
    kind = type(error).__name__
    try:
        return f"{kind}: {error}"
    except Exception:  # whatever its __str__ raises: the unit ends all the same
        return kind


def load_work(name: str) -> Work:
    """Import the function that ``RTB_WORK`` names.

    Raises:
        SettingError: there is none.
    """
    module, _, function = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(
            f"RTB_WORK={name!r}: {error}. Write module:function, and see that the module can be"
            " imported (PYTHONPATH)."
        ) from error
    if not callable(found):
        raise SettingError(f"RTB_WORK={name!r} is no function.")
    return found  # type: ignore[no-any-return]
