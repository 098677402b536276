"""The operations of the queue: which script, with which arguments, and what its answer means.

Values only: an operation is run by :class:`~.store.Store` (asyncio) or
:class:`~.blocking.BlockingStore`. Whoever makes one has checked the values (``fields.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Argument = str | bytes | int


@dataclass(frozen=True)
class Operation(Generic[T]):
    """One atomic step on one queue type.

    Args:
        script: the name of the Lua script.
        queue_type: the type.
        arguments: the script's ARGV.
        parse: makes the result of the script's answer.
    """

    script: str
    queue_type: str
    arguments: tuple[Argument, ...]
    parse: Callable[[Any], T]


@dataclass(frozen=True)
class Enqueued:
    """The answer to an enqueue; ``waiting`` counts the jobs before it.

    ``status`` is ``queued``, ``duplicate``, ``full``, or ``unknown``: no interval was given, and
    the queue has none.
    """

    status: str
    waiting: int


@dataclass(frozen=True)
class Delivery:
    """A job with its lease. ``payload`` is JSON text, ``waiting`` the jobs left in its queue."""

    queue_id: str
    job_id: str
    payload: bytes
    requeues_remaining: int
    waiting: int
    token: str


@dataclass(frozen=True)
class Deliveries:
    """The answer to a dequeue.

    ``wait`` is the time in seconds until the next release, None where no job waits.
    """

    jobs: list[Delivery]
    wait: float | None


@dataclass(frozen=True)
class JobState:
    """``state`` is ``queued``, ``active`` or ``dead``; ``ahead`` counts the jobs before it.

    ``next_ms`` is the time in ms to its queue's next release, or to the end of its lease.
    """

    state: str
    requeues_remaining: int
    ahead: int
    next_ms: int


@dataclass(frozen=True)
class Metrics:
    """Counters of a type or of one queue id; ``minutes`` are epoch milliseconds."""

    minutes: list[int]
    enqueued: list[int]
    dequeued: list[int]
    queue_length: int
    ready: int
    due: int
    active: int
    dead: int
    interval: int | None
    totals: dict[str, int] = field(default_factory=dict)


def enqueue(
    queue_type: str,
    queue_id: str,
    job_id: str,
    payload: bytes,
    interval: int | None,
    requeue_limit: int,
    most_waiting: int | None = None,
) -> Operation[Enqueued]:
    """Add a job, unless its id waits or is active, or ``most_waiting`` jobs wait already.

    ``interval`` (ms) becomes that of the queue; None keeps what it has.
    """
    most = -1 if most_waiting is None else most_waiting
    given: Argument = "" if interval is None else interval
    arguments = (queue_id, job_id, payload, given, requeue_limit, most)
    return Operation("enqueue", queue_type, arguments, lambda a: Enqueued(a[0].decode(), a[1]))


def dequeue(queue_type: str, count: int, lease: int, hold: int = 0) -> Operation[Deliveries]:
    """Take up to ``count`` due jobs, each with a lease of ``lease`` ms.

    With ``hold`` (ms), a queue with an interval releases nothing more for so long, unless the
    delivery has begun or ended before.
    """
    return Operation("dequeue", queue_type, (count, lease, hold), _deliveries)


def _deliveries(answer: list[Any]) -> Deliveries:
    jobs = [
        Delivery(job[0].decode(), job[1].decode(), job[2], int(job[3]), job[4], job[5].decode())
        for job in answer[2:]
    ]
    wait = max(0, int(answer[1]) - int(answer[0])) / 1e6 if answer[1] else None
    return Deliveries(jobs, wait)


def finish(queue_type: str, queue_id: str, job_id: str, token: str = "") -> Operation[bool]:
    """End a job whose lease has this token; without one, by whatever lease it has."""
    return Operation("finish", queue_type, (queue_id, job_id, token), bool)


def begin(
    queue_type: str, queue_id: str, job_id: str, token: str, lease: int, rank: int, run: str
) -> Operation[str]:
    """Let the work of a delivery begin, with a lease of ``lease`` ms.

    ``rank`` orders the runs of a delivery: one that has begun does not begin again. ``run`` names
    this one, letters and digits: it may ask again. The answer is
    ``run``; ``wait``: the limit does not let it begin yet; ``other``: another delivery or run has
    the job; or ``gone``: there is no such job.
    """
    arguments = (queue_id, job_id, token, lease, rank, run)
    return Operation("begin", queue_type, arguments, lambda a: str(a.decode()))


def admit(
    queue_type: str,
    queue_id: str,
    job_id: str,
    payload: bytes,
    interval: int | None,
    requeue_limit: int,
    lease: int,
    rank: int,
    run: str,
) -> Operation[tuple[str, str]]:
    """Let work begin that no delivery is for, if there is room for it; else let it wait.

    The answer is ``run``, with the token of a lease of ``lease`` ms; ``queued``; ``other``: the job
    waits or runs already; or ``free``: there is no limit, since ``interval`` is None and the queue
    has none.
    """
    given: Argument = "" if interval is None else interval
    arguments = (queue_id, job_id, payload, given, requeue_limit, lease, rank, run)
    return Operation("admit", queue_type, arguments, lambda a: (a[0].decode(), a[1].decode()))


def send_back(
    queue_type: str, queue_id: str, job_id: str, token: str, payload: bytes
) -> Operation[bool]:
    """Put a delivery that may not begin yet back in its place, as it is now."""
    return Operation("back", queue_type, (queue_id, job_id, token, payload), bool)


def renew(
    queue_type: str,
    queue_id: str,
    job_id: str,
    token: str,
    lease: int,
    rank: int | None = None,
    begins: bool = False,
) -> Operation[bool]:
    """Make a lease last ``lease`` ms from now; without a token, the current one.

    ``rank`` says that no run goes on, and which one may begin next; ``begins`` that the work, which
    was let begin, did so only now.
    """
    least: Argument = "" if rank is None else rank
    arguments = (queue_id, job_id, token, lease, least, int(begins))
    return Operation("renew", queue_type, arguments, bool)


def sent(
    queue_type: str, queue_id: str, job_id: str, token: str, lease: int, before: int
) -> Operation[bool]:
    """Make the lease of a delivery that was passed on ``lease`` ms, unless its work has begun.

    ``before`` is the lease in ms that the delivery was given.
    """
    arguments = (queue_id, job_id, token, lease, before)
    return Operation("sent", queue_type, arguments, bool)


def give_back(queue_type: str, queue_id: str, job_id: str, token: str) -> Operation[bool]:
    """Put a delivery that nobody has seen back in its place."""
    return Operation("give_back", queue_type, (queue_id, job_id, token), bool)


def requeue(queue_type: str, chunk: int, dead_limit: int) -> Operation[int]:
    """Put up to ``chunk`` expired jobs back; the count of leases that it looked at."""
    return Operation("requeue", queue_type, (chunk, dead_limit), lambda a: int(a[0]))


def set_interval(queue_type: str, queue_id: str, interval: int) -> Operation[bool]:
    """Change the interval (ms) of a queue; False where the store does not know it."""
    return Operation("interval", queue_type, (queue_id, interval), bool)


def clear(queue_type: str, queue_id: str, chunk: int, last: str) -> Operation[tuple[int, str]]:
    """Remove up to ``chunk`` waiting jobs; how many, and what to pass as ``last`` to go on."""
    arguments = (queue_id, chunk, last)
    return Operation("clear", queue_type, arguments, lambda a: (a[0], a[1].decode()))


def purge(queue_type: str, queue_id: str) -> Operation[tuple[bool, str]]:
    """Remove all keys of a queue; whether it had jobs, and what :func:`sweep` goes through."""
    return Operation("purge", queue_type, (queue_id,), lambda a: (bool(a[0]), a[1].decode()))


def sweep(queue_type: str, queue_id: str, trash: str, cursor: str) -> Operation[str]:
    """Remove leases of purged jobs; the next cursor, ``0`` at the end."""
    return Operation("sweep", queue_type, (queue_id, trash, cursor), lambda a: str(a.decode()))


def job(queue_type: str, queue_id: str, job_id: str) -> Operation[JobState | None]:
    """Look a job up; None where the store does not know it (any more)."""

    def parse(answer: list[Any]) -> JobState | None:
        if not answer:
            return None
        return JobState(answer[0].decode(), int(answer[1]), answer[2], int(answer[3]))

    return Operation("job", queue_type, (queue_id, job_id), parse)


def metrics(queue_type: str, queue_id: str = "") -> Operation[Metrics]:
    """Count what a type has, or one queue id of it."""
    return Operation("metrics", queue_type, (queue_id,), _metrics)


def _metrics(answer: list[Any]) -> Metrics:
    first = int(answer[0])
    flat = answer[8]
    return Metrics(
        minutes=[first + 60_000 * index for index in range(10)],
        enqueued=answer[1],
        dequeued=answer[2],
        queue_length=answer[3],
        ready=answer[4],
        due=answer[5],
        active=answer[6],
        dead=answer[7],
        interval=int(answer[9]) if answer[9] else None,
        totals={flat[i].decode(): int(flat[i + 1]) for i in range(0, len(flat), 2)},
    )


def retire(queue_type: str) -> Operation[bool]:
    """Forget the totals of a type without jobs; False where it has some."""
    return Operation("retire", queue_type, (), bool)
