"""Hides arguments before they are stored."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from fnmatch import translate
from typing import Any

from .errors import ConfigError
from .messages import Redaction

#: What stands in the place of a hidden value.
HIDDEN = "***"


def make_redaction(
    rule: Any, tasks: Mapping[str, Any]
) -> tuple[Redaction | None, Callable[[str], bool] | None]:
    """The redaction of ``MONITOR_REDACT``, and the one for names of headers.

    Args:
        rule: names of arguments or shell patterns (``"*password*"``), without regard to case; or
            a function that takes the task's name, ``args`` and ``kwargs`` and returns the two to
            be stored; or nothing.
        tasks: the app's tasks by name; they tell the names of positional arguments.

    Raises:
        ConfigError: the rule is none of these.
    """
    if not rule:
        return None, None
    if callable(rule):
        return rule, None
    names = [rule] if isinstance(rule, str) else rule
    if not isinstance(names, list | tuple | set | frozenset) or not all(
        isinstance(name, str) for name in names
    ):
        raise ConfigError(
            f"MONITOR_REDACT is a {type(rule).__name__}: give a list of names or patterns of "
            f"arguments, or a function of task name, args and kwargs."
        )
    hidden = re.compile("|".join(translate(name) for name in names), re.IGNORECASE).match

    def is_hidden(name: str) -> bool:
        return hidden(name) is not None

    def redact(task: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        positions = _positional_names(tasks.get(task))
        shown = [
            HIDDEN
            if position < len(positions) and is_hidden(positions[position])
            else _redacted(value, is_hidden)
            for position, value in enumerate(args or ())
        ]
        return shown, _redacted(kwargs or {}, is_hidden)

    return redact, is_hidden


def _redacted(value: Any, is_hidden: Callable[[str], bool]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if is_hidden(str(key)) else _redacted(item, is_hidden)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redacted(item, is_hidden) for item in value]
    return value


def _positional_names(task: Any) -> list[str]:
    """The names of a task's positional arguments, where its code is at hand."""
    if task is None:
        return []
    try:
        parameters = list(inspect.signature(task.run).parameters.values())
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in positional]
