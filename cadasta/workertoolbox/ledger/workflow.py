"""A workflow's tree and state, from the tasks of one root. Pure, and without recursion."""

from __future__ import annotations

from collections.abc import Sequence

from .model import CHORD_UNLOCK, IGNORED, Node, Task, Workflow


def build_workflow(tasks: Sequence[Task], root_id: str) -> Workflow | None:
    """Return the workflow of ``tasks``, which are all that one root led to, or None without any.

    A task without its parent among them becomes a child of the root; where the root itself is
    not among them, the oldest task without a parent stands for it. The body of a chord, which
    Celery publishes from ``celery.chord_unlock``, is a child of the task that asked for the
    chord. Children are in the order of publication.
    """
    members = {
        task.task_id: task
        for task in sorted(tasks, key=lambda task: (task.published_at, task.task_id))
        if task.name != CHORD_UNLOCK
    }
    if not members:
        return None
    parents = _parents(tasks)
    orphans = (task_id for task_id in members if parents[task_id] not in members)
    # Without any orphan the parents go in a circle: the oldest is as good as another.
    root = root_id if root_id in members else next(orphans, next(iter(members)))
    return Workflow(
        root=_tree(members, parents, root),
        state=overall_state(list(members.values())),
        results={
            task.task_id: task.result
            for task in members.values()
            if task.state == "SUCCESS" and task.properties.get("is_result") is True
        },
    )


def overall_state(tasks: Sequence[Task]) -> str:
    """Return FAILURE if any task failed, the common state if all agree, else STARTED.

    A task that is IGNORED says nothing of how it ended: it counts only where all are.
    """
    states = {task.state for task in tasks if task.name != CHORD_UNLOCK}
    states = states - {IGNORED} or states
    if "FAILURE" in states:
        return "FAILURE"
    return states.pop() if len(states) == 1 else "STARTED"


def _parents(tasks: Sequence[Task]) -> dict[str, str | None]:
    """Return the parent of each task, past those that only wait for a chord's members."""
    parents = {task.task_id: task.parent_id for task in tasks}
    unlocks = {task.task_id for task in tasks if task.name == CHORD_UNLOCK}
    for task_id, parent in parents.items():
        seen = {task_id}
        while parent in unlocks and parent not in seen:  # damaged data may go in a circle
            seen.add(parent)
            parent = parents[parent]
        parents[task_id] = parent
    return parents


def _tree(members: dict[str, Task], parents: dict[str, str | None], root: str) -> Node:
    children: dict[str, list[str]] = {task_id: [] for task_id in members}
    for task_id in members:
        parent = parents[task_id]
        if task_id != root:
            is_known = parent in members and parent != task_id
            children[parent if is_known and parent else root].append(task_id)
    order = _reachable(root, children)
    # Whom the root does not reach is in a circle of parents: its oldest member comes under the
    # root, and the circle is cut there.
    reached = set(order)
    for task_id in members:
        if task_id not in reached:
            children[parents[task_id] or ""].remove(task_id)
            children[root].append(task_id)
            circle = _reachable(task_id, children)
            order.extend(circle)
            reached.update(circle)
    nodes: dict[str, Node] = {}
    for task_id in reversed(order):
        below = tuple(nodes[child] for child in children[task_id])
        nodes[task_id] = Node(members[task_id], below)
    return nodes[root]


def _reachable(start: str, children: dict[str, list[str]]) -> list[str]:
    """Return ``start`` and all below it, each after its parent."""
    order = [start]
    for task_id in order:
        order.extend(children[task_id])
    return order
