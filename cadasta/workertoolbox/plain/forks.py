"""What is to happen around each fork of this process, told once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

Hook: TypeAlias = Callable[[], object]

#: By the functions of each guard: what the thread that told of them first put there.
_guards: dict[tuple[Hook | None, ...], object] = {}


def around_forks(
    *,
    before: Hook | None = None,
    after_in_parent: Hook | None = None,
    after_in_child: Hook | None = None,
) -> None:
    """Call these functions around each fork from now on; a second time changes nothing.

    Python calls what comes before in the order opposite to that in which it was told, and what
    comes after in that order. It calls them in the thread that forks, which alone exists in the
    child: a lock that another thread held there is held for ever, so that the child needs new ones.

    Args:
        before: called before the fork.
        after_in_parent: called in the parent after it.
        after_in_child: called in the child after it.
    """
    if not hasattr(os, "register_at_fork"):
        return  # no fork on this system
    hooks = {"before": before, "after_in_parent": after_in_parent, "after_in_child": after_in_child}
    # One step for all threads, without a lock: it could be held at a fork.
    mine = object()
    if _guards.setdefault(tuple(hooks.values()), mine) is mine:
        os.register_at_fork(**{name: hook for name, hook in hooks.items() if hook is not None})
