"""Hides arguments before they are stored."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from fnmatch import translate
from typing import Any

from ..errors import ConfigError

#: A redaction: task name, arguments and keyword arguments in, the same two out.
Redaction = Callable[[str, Any, Any], tuple[Any, Any]]
#: What stands in the place of a hidden value.
HIDDEN = "***"


def make_redaction(
    rule: Any, tasks: Mapping[str, Any]
) -> tuple[Redaction | None, Callable[[Any], Any] | None]:
    """The redaction of ``MONITOR_REDACT``, and the one for headers and stamps.

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

    redactor = _Redactor(tasks, is_hidden)
    return redactor.call, redactor.shown


class _Redactor:
    """Hides arguments of these names in calls, and in the signatures that calls carry."""

    def __init__(self, tasks: Mapping[str, Any], is_hidden: Callable[[str], bool]) -> None:
        self._tasks = tasks
        self._is_hidden = is_hidden

    def call(self, task: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return what may be stored of a call."""
        names, rest = _positional_names(self._tasks.get(task))
        shown = []
        for position, value in enumerate(args or ()):
            name = names[position] if position < len(names) else rest
            # An argument whose name nobody knows may be one that is to be hidden.
            hidden = name is None or self._is_hidden(name)
            shown.append(HIDDEN if hidden else self.shown(value))
        return shown, self.shown(kwargs or {})

    def shown(self, value: Any) -> Any:
        """Return what may be stored of a value, in which names can be at any depth."""
        if isinstance(value, list | tuple):
            return [self.shown(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        shown = {
            key: HIDDEN if self._is_hidden(str(key)) else self.shown(item)
            for key, item in value.items()
        }
        called = value.get("task")
        if isinstance(called, str) and "args" in shown and "kwargs" in shown:  # a signature
            shown["args"] = self._partial(called, shown["args"])
        elif isinstance(called, Mapping) and isinstance(shown.get("it"), list):  # map and chunks
            shown["it"] = [self._partial(called.get("task"), item) for item in shown["it"]]
        return shown

    def _partial(self, task: Any, args: Any) -> Any:
        # Other tasks' results may come before them: nobody knows which argument will be which.
        names, rest = _positional_names(self._tasks.get(task))
        known = [name for name in (*names, rest) if name is not None]
        if known and not any(map(self._is_hidden, known)):
            return args
        return [HIDDEN] * len(args) if isinstance(args, list) else HIDDEN


def _positional_names(task: Any) -> tuple[list[str], str | None]:
    """The names of a task's positional arguments, and that of all further ones, where known."""
    if task is None:
        return [], None
    try:
        parameters = list(inspect.signature(task.run).parameters.values())
    except (TypeError, ValueError):
        return [], None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    further = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL]
    return [p.name for p in parameters if p.kind in positional], further[0] if further else None
