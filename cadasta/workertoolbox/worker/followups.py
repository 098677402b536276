"""What is to happen after a task, handed on to the last of its subtasks."""

from __future__ import annotations

from typing import Any


def extract_followups(task: Any) -> dict[str, Any]:
    """Take a running task's follow-ups from it, to pass them on to a task that it schedules.

    Its callbacks, its errbacks and the rest of the chain that it stands in would run when *it*
    ends; handed on, they run when the last subtask ends::

        @app.task(bind=True)
        def export(self, ids):
            finish.apply_async((ids,), **extract_followups(self))

    Args:
        task: the running task (``self`` of a bound task). It has no follow-ups afterwards.

    Returns:
        ``{"link": ..., "link_error": ...}``, each a list of signatures or None.
    """
    request = task.request
    callbacks, errbacks = list(request.callbacks or []), list(request.errbacks or [])
    if request.chain:
        # Celery keeps the rest of a chain reversed: the next step is the last entry.
        *rest, following = request.chain
        following = task.app.signature(following).clone()
        if rest:
            following.options["chain"] = rest
        callbacks.append(following)
    request.callbacks = request.errbacks = request.chain = None
    return {"link": callbacks or None, "link_error": errbacks or None}
