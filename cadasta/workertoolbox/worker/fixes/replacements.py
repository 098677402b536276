"""What a task hands on to the signature that takes its place (``Task.replace``)."""

from __future__ import annotations

import functools
from typing import Any

from ...messages.decoding import HEADER_PROPERTIES, custom_header_names
from .known import Workaround

_WORKAROUND = Workaround(
    "a task that takes another's place (Task.replace) has not its headers, stamps, properties and "
    "priority"
)


def keep_replacements(app: Any) -> None:
    """Let each task of ``app`` hand headers, properties, stamps and priority on when replaced.

    Celery 5.7 hands on its id, its place in chain, group and chord, and its callbacks alone.
    """
    if not _WORKAROUND.has(app.Task, "celery.Task", "on_replace"):
        return
    for task in app.tasks.values():
        if not isinstance(task.on_replace, OnReplace):
            task.on_replace = OnReplace(task, task.on_replace)


class OnReplace:
    """``on_replace`` of one task."""

    def __init__(self, task: Any, on_replace: Any) -> None:
        functools.update_wrapper(self, on_replace)
        self.task = task
        self.on_replace = on_replace

    def __call__(self, sig: Any) -> Any:
        """Publish ``sig`` in the task's place; called by Celery when it is ready for that."""
        with _WORKAROUND.stepping_aside():
            self._hand_on(sig)
        return self.on_replace(sig)

    def _hand_on(self, sig: Any) -> None:
        request = self.task.request
        if not request.is_eager:
            heir = _signature_of(request.id, sig)
            if heir is not None:
                _hand_on(request, heir["options"])
                _hand_on_priority(request, heir["options"])
            # Of a chain its first task has it then, of a chord its header.
            _hand_on_priority(request, sig["options"])


def _signature_of(task_id: str, sig: Any) -> Any:
    """The task in ``sig`` that bears this id: the last one of a chain, the body of a chord."""
    waiting = [sig]
    for one in waiting:
        parts = (
            one["kwargs"].get("tasks") if one["task"] in ("celery.chain", "celery.group") else ()
        )
        if one["task"] == "celery.chord":
            parts = [one["kwargs"]["body"]]
        elif one["options"].get("task_id") == task_id and not parts:
            return one
        waiting.extend(part for part in parts or () if isinstance(part, dict))
    return None


def _hand_on(request: Any, options: dict[str, Any]) -> None:
    """Give ``options`` what the task had, where they say nothing else."""
    sent = request.headers or {}
    own = {name: sent[name] for name in custom_header_names(sent)}
    if own:
        options["headers"] = {**own, **(options.get("headers") or {})}
    for name, value in (sent.get(HEADER_PROPERTIES) or {}).items():
        options.setdefault(name, value)
    stamps = request.stamps or {}
    if stamps:
        names = [*(options.get("stamped_headers") or ()), *stamps]
        options["stamped_headers"] = list(dict.fromkeys(names))
        for name, value in stamps.items():
            options.setdefault(name, value)


def _hand_on_priority(request: Any, options: dict[str, Any]) -> None:
    priority = (request.delivery_info or {}).get("priority")
    if priority and options.get("priority") is None:  # without one it is 0, on every broker
        options["priority"] = priority
