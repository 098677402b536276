"""What the ledger gives back: tasks, pages, workflows, summaries; all frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

#: The state of a task that raised ``Ignore``; and, where the outcomes of tasks that ignore their
#: result are not recorded, of such a one.
IGNORED = "IGNORED"
#: States after which nothing more happens to a task, or nobody will be told of it.
FINAL_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED", IGNORED})
#: The state of a task without a row in the result table.
PENDING = "PENDING"
#: States in which a task waits in its queue, where it may expire.
WAITING_STATES = frozenset({PENDING, "RECEIVED", "RETRY"})
#: Celery's own task that waits for a chord's members: it is no part of what was asked for.
CHORD_UNLOCK = "celery.chord_unlock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task: what was scheduled, and what came of it. All times are aware, in UTC."""

    task_id: str
    name: str
    queue: str | None
    root_id: str | None
    parent_id: str | None
    group_id: str | None
    #: Positional arguments, or None where they were not stored.
    args: list[Any] | None
    kwargs: dict[str, Any] | None
    args_repr: str | None
    kwargs_repr: str | None
    #: True where the arguments were too large to be stored.
    args_truncated: bool
    eta: datetime | None
    expires: datetime | None
    retries: int
    #: How often ``Task.replace`` put another task in this one's place.
    replacements: int
    #: How many copies of its messages were recorded, redelivered ones included.
    publications: int
    origin: str | None
    priority: int | None
    #: Hard and soft limit in seconds.
    time_limit: float | None
    soft_time_limit: float | None
    #: Its result is not stored; how it ended is, unless ``RECORD_IGNORED`` is off.
    ignore_result: bool
    stamps: dict[str, Any]
    headers: dict[str, Any]
    properties: dict[str, Any]
    #: The first publication's time, and the latest one's (a retry is a publication).
    published_at: datetime
    last_published_at: datetime
    recorded_at: datetime
    #: ``PENDING`` where the result table has no row, or ``IGNORED`` where it will have none.
    state: str = PENDING
    #: The result's value; for an exception a text such as ``ValueError: no such file``.
    result: Any = None
    traceback: str | None = None
    worker: str | None = None
    date_done: datetime | None = None
    #: None where the result backend does not keep it, as Celery's own does not.
    date_started: datetime | None = None
    #: Seconds from start to end, or None.
    runtime: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to it, or be told."""
        return self.state in FINAL_STATES

    @property
    def has_expired(self) -> bool:
        """Whether its time to start is over, and no worker has begun it: none ever will.

        Its state stays ``PENDING`` or ``RETRY`` where the broker has dropped it; a worker that
        takes it later makes it ``REVOKED``.
        """
        return (
            self.expires is not None
            and self.state in WAITING_STATES
            and self.expires < datetime.now(timezone.utc)
        )

    @property
    def due_at(self) -> datetime:
        """When it may start: its latest publication, or its ETA if that is later."""
        return max(self.last_published_at, self.eta or self.last_published_at)

    @property
    def waited(self) -> float | None:
        """Seconds from :attr:`due_at` to its start; None where the start is not known.

        Of a task that waits for its retry only the start before is known.
        """
        if self.date_started is None or self.state == "RETRY":
            return None
        return max(0.0, (self.date_started - self.due_at).total_seconds())

    @property
    def ran(self) -> float | None:
        """Seconds from its start to its end; None where either is not known."""
        if self.runtime is not None or self.date_started is None or self.date_done is None:
            return self.runtime
        return max(0.0, (self.date_done - self.date_started).total_seconds())


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a task, from its start to its retry or its end. Times are aware, in UTC."""

    #: How many retries came before it.
    retries: int
    #: RETRY, or the final state.
    state: str
    worker: str | None
    started_at: datetime | None
    ended_at: datetime | None
    #: Seconds, or None.
    runtime: float | None
    #: Such as ``ValueError: no such file``; None for a success.
    error: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Tasks, newest first, and the cursor for ``after=`` of the next page (None: the last)."""

    tasks: tuple[Task, ...]
    next: str | None = None

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Node:
    """A task in a workflow's tree, with the tasks that it led to, in order of publication."""

    task: Task
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[tuple[int, Node]]:
        """Give each node under this one, itself first, with its depth (this one's is 0)."""
        waiting = [(0, self)]
        while waiting:
            depth, node = waiting.pop()
            yield depth, node
            waiting.extend((depth + 1, child) for child in reversed(node.children))

    def __repr__(self) -> str:
        # Not the default: it would descend through chains of thousands.
        task = self.task
        return f"<Node {task.task_id} {task.name} {task.state}, {len(self.children)} children>"


@dataclass(frozen=True, slots=True)
class Workflow:
    """Everything that one root task led to."""

    root: Node
    #: FAILURE if any task failed, the common state if all agree, else STARTED; what is IGNORED
    #: does not count among others.
    state: str
    #: Results by task id of the finished tasks whose property ``is_result`` is true.
    results: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, in the order of the tree."""
        return tuple(node.task for _, node in self.root.walk())


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds that half, 95% and 99% of the tasks did not exceed; None where unknown."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class NameSummary:
    """The tasks of one name: how many in each state, and their times."""

    name: str
    states: Mapping[str, int]
    #: From due to started.
    waiting: Percentiles = Percentiles()
    #: From started to done.
    running: Percentiles = Percentiles()

    @property
    def total(self) -> int:
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole ledger, or what was published since a moment, by task name."""

    names: tuple[NameSummary, ...]

    @property
    def states(self) -> dict[str, int]:
        """How many tasks are in each state, over all names."""
        counts: dict[str, int] = {}
        for name in self.names:
            for state, count in name.states.items():
                counts[state] = counts.get(state, 0) + count
        return counts

    @property
    def total(self) -> int:
        return sum(name.total for name in self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecodable:
    """A message of the monitor queue that could not be read, as it came."""

    error: str
    #: The body, or its beginning.
    body: bytes | None = None
    #: The whole body's size in bytes.
    body_size: int = 0
    #: When the monitor took it; None for now.
    received_at: datetime | None = None
    queue: str | None = None
    routing_key: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] | str | None = None
    properties: Mapping[str, Any] | str | None = None
    #: What tells it from all others, 64 characters at most: SHA-256 of headers, properties and
    #: body where none is given. Give the whole body's where ``body`` is cut.
    digest: str | None = None
