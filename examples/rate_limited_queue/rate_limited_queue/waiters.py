"""Long polls: requests that wait for a job, without asking the store again and again.

For each queue type with waiting requests, one task sleeps until the next release that the store
has told of, or until the store announces an earlier one. So thousands of waiting requests cost
the store nothing, and one release wakes one call a server process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import dataclass, field

from . import clients, operations
from .errors import StoreUnavailable
from .operations import Delivery
from .scripts import base_key
from .store import Store

logger = logging.getLogger(__name__)

#: Most jobs of one call to the store.
BATCH = 100
#: Seconds until a lost subscription, or a store that was away, is tried again.
RETRY = 0.5


@dataclass
class _Line:
    """The requests that wait for jobs of one type, the oldest first."""

    requests: deque[tuple[int, asyncio.Future[list[Delivery]]]] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Waiters:
    """Hands jobs to waiting requests.

    Args:
        store: where the jobs are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: dict[str, _Line] = {}
        self._listening = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._giving_back: set[asyncio.Task[None]] = set()
        self._ended = False

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return sum(len(line.requests) for line in self._lines.values())

    def end(self) -> None:
        """Let requests wait no more: those that do, and all to come, get nothing at once."""
        self._ended = True
        for line in self._lines.values():
            for _, future in line.requests:
                _resolve(future, [])

    async def close(self) -> None:
        """Stop; requests that wait get nothing."""
        self.end()
        tasks = [line.task for line in self._lines.values() if line.task]
        tasks += [self._listener] if self._listener else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def wait(self, queue_type: str, count: int, timeout: float) -> list[Delivery]:
        """Wait up to ``timeout`` seconds for up to ``count`` jobs; an empty list if none came."""
        if self._ended:
            return []
        if self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(self._listen())
        line = self._lines.get(queue_type)
        if line is None:
            line = self._lines[queue_type] = _Line()
        future: asyncio.Future[list[Delivery]] = asyncio.get_running_loop().create_future()
        request = (count, future)
        line.requests.append(request)
        if line.task is None:
            line.task = asyncio.get_running_loop().create_task(self._serve(queue_type, line))
        elif len(line.requests) == 1:
            line.wake.set()
        # A timer of its own: wait_for() could drop jobs that arrive while it gives up.
        timer = asyncio.get_running_loop().call_later(timeout, _resolve, future, [])
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancel() and (jobs := future.result()):
                # They came just when the request gave up.
                task = asyncio.get_running_loop().create_task(self.give_back(queue_type, jobs))
                self._giving_back.add(task)
                task.add_done_callback(self._giving_back.discard)
            raise
        finally:
            timer.cancel()
            with contextlib.suppress(ValueError):
                line.requests.remove(request)
            if not line.requests:
                line.wake.set()  # Nobody waits: the line's task ends.

    async def _serve(self, queue_type: str, line: _Line) -> None:
        """Take jobs for the requests in line until there are none left."""
        try:
            while line.requests:
                await self._listening.wait()
                line.wake.clear()
                wanted = sum(count for count, _ in line.requests)
                pause: float | None = RETRY
                try:
                    found = await self._store.dequeue(
                        operations.dequeue(
                            queue_type,
                            min(wanted, BATCH),
                            self._store.settings.job_expire_interval,
                        )
                    )
                except StoreUnavailable:
                    pass
                else:
                    await self.give_back(queue_type, _hand_out(line, found.jobs))
                    if found.jobs:
                        continue
                    pause = found.wait
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(line.wake.wait(), pause)
        finally:
            line.task = None
            if not line.requests:
                self._lines.pop(queue_type, None)

    async def give_back(self, queue_type: str, jobs: list[Delivery]) -> None:
        """Put jobs back that nobody has seen; where the store is away, their leases end."""
        for job in jobs:
            with contextlib.suppress(StoreUnavailable):
                await self._store.run(
                    operations.give_back(queue_type, job.queue_id, job.job_id, job.token)
                )

    async def _listen(self) -> None:
        """Wake a type's line when the store announces that one of its queues releases earlier."""
        pattern = base_key(self._store.settings.redis_key_prefix, "*") + "w"
        start = len(pattern) - len("*}:w")
        while True:
            client = clients.listener(self._store.settings)
            try:
                async with client.pubsub() as subscription:
                    await subscription.psubscribe(pattern)
                    async for message in subscription.listen():
                        if message["type"] == "psubscribe":
                            self._listening.set()
                            for line in self._lines.values():
                                line.wake.set()
                        elif message["type"] == "pmessage":
                            queue_type = message["channel"].decode()[start : -len("}:w")]
                            if queue_type in self._lines:
                                self._lines[queue_type].wake.set()
            except Exception as error:
                # Any: whatever it was, all long polls of this process depend on this loop.
                logger.warning("Lost the subscription to Redis: %s", error)
            finally:
                self._listening.clear()
                with contextlib.suppress(Exception):
                    await client.aclose()
            await asyncio.sleep(RETRY)


def _hand_out(line: _Line, jobs: list[Delivery]) -> list[Delivery]:
    """Give jobs to the requests in line; those that are left over."""
    while jobs and line.requests:
        count, future = line.requests.popleft()
        if not future.done():
            future.set_result(jobs[:count])
            jobs = jobs[count:]
    return jobs


def _resolve(future: asyncio.Future[list[Delivery]], jobs: list[Delivery]) -> None:
    if not future.done():
        future.set_result(jobs)
