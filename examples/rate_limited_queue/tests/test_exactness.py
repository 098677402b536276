"""The soak: 200 queue ids, 4 servers, 16 clients, random expiry, refills and interval changes.

60 seconds with ``TEST_FULL=1``, else 4. A release is judged by the store's clock (its token)
against the smallest interval that the queue had since the release before.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rate_limited_queue.client import Client

SECONDS = 60 if os.environ.get("TEST_FULL") else 4
QUEUES = 200


@dataclass
class History:
    """What happened; appends to lists are atomic, and nothing is read before the end."""

    #: Queue id -> (begin, end, interval) of each call that set an interval, in the store's µs.
    intervals: dict[str, list[tuple[int, int, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    #: Queue id -> (release in µs, job id).
    releases: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    finished: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)


def now() -> int:
    """Servers, Redis and this test share a machine, and so its clock."""
    return time.time_ns() // 1000


class Actor(threading.Thread):
    """One client, which produces, changes intervals or consumes, at random."""

    def __init__(self, number: int, url: str, history: History, over: threading.Event) -> None:
        super().__init__(name=f"actor-{number}")
        self.number = number
        self.random = random.Random(number)
        self.client = Client(url)
        self.history = history
        self.over = over
        self.failure: BaseException | None = None
        self.jobs = 0
        # The interval of a queue is changed by one actor alone, so that its order is known.
        self.queues = [f"q{n}" for n in range(QUEUES) if n % 8 == number]
        self.interval = {queue: self.random.randrange(3001) for queue in self.queues}

    def run(self) -> None:
        try:
            with self.client:
                while not self.over.is_set():
                    self.produce() if self.number < 8 else self.consume()
        except BaseException as error:
            self.failure = error

    def produce(self) -> None:
        queue = self.random.choice(self.queues)
        before = now()
        if self.random.random() < 0.1:
            self.interval[queue] = self.random.choice([0, self.random.randrange(3001)])
            status, _ = self.client.interval("soak", queue, self.interval[queue])
            assert status in (200, 404)
        else:
            self.jobs += 1
            job = f"{self.number}-{self.jobs}"
            limit = self.random.choice([0, 1, 20])
            status, _ = self.client.enqueue(
                "soak", queue, job, self.interval[queue], requeue_limit=limit
            )
            assert status == 201
            self.history.accepted.append(f"{queue}/{job}")
        self.history.intervals[queue].append((before, now(), self.interval[queue]))
        time.sleep(0.004)

    def consume(self) -> None:
        status, job = self.client.dequeue("soak", wait=0.2)
        if status != 200:
            return
        queue = job["queue_id"]
        self.history.releases[queue].append((int(job["token"]), job["job_id"]))
        if self.random.random() < 0.1:
            return  # its lease expires
        if self.random.random() < 0.05:
            time.sleep(0.25)  # about as long as its lease
        if self.client.finish("soak", queue, job["job_id"], job["token"])[0] == 200:
            self.history.finished.append(f"{queue}/{job['job_id']}")


def least_interval(sets: list[tuple[int, int, int]], first: int, second: int) -> int:
    """The smallest interval in ms that the queue had at any time between two releases.

    A shorter interval counts at once. A longer one does so where the queue still knows its last
    release, which is until the interval before is over; ``test_limits.py`` has these cases singly.
    """
    before = [interval for _, end, interval in sets if end <= first]
    meanwhile = [interval for begin, end, interval in sets if end > first and begin <= second]
    return min([*before[-1:], *meanwhile])


def test_no_release_comes_early_and_no_job_is_lost(start_server: Callable[..., str]) -> None:
    urls = [start_server(RLQ_SHARQ_JOB_EXPIRE_INTERVAL=250) for _ in range(4)]
    history, over = History(), threading.Event()
    actors = [Actor(number, urls[number % 4], history, over) for number in range(16)]
    for actor in actors:
        actor.start()
    time.sleep(SECONDS)
    over.set()
    for actor in actors:
        actor.join(30)
    assert [actor.failure for actor in actors if actor.failure] == []

    pairs = check_gaps(history)
    drain(urls[0], history)
    dead = dead_jobs(urls[0])
    ended = history.finished + dead
    assert len(ended) == len(set(ended)), "a job ended twice"
    assert set(ended) == set(history.accepted)
    print(f"{len(history.accepted)} jobs, {pairs} pairs of releases, {len(dead)} dead, none early")
    assert pairs > 20 * SECONDS


def check_gaps(history: History) -> int:
    """Check each pair of releases of a queue id; how many there were."""
    pairs = 0
    for queue, releases in history.releases.items():
        releases.sort()
        sets = history.intervals[queue]
        for (first, one), (second, other) in zip(releases, releases[1:], strict=False):
            least = least_interval(sets, first, second) * 1000
            assert second - first >= least, (
                f"{queue}: {one} and {other} were released {second - first} µs apart, not {least}"
            )
            pairs += 1
    return pairs


def drain(url: str, history: History) -> None:
    """Take and finish everything that is left."""
    with Client(url) as client:
        for number in range(QUEUES):
            client.interval("soak", f"q{number}", 0)
        deadline = time.monotonic() + 60
        while client.call("GET", "/metrics/soak/")[1]["queue_ids"]:
            assert time.monotonic() < deadline
            status, answer = client.dequeue("soak", count=100, wait=0.1)
            for job in answer["jobs"] if status == 200 else []:
                path: tuple[Any, ...] = (job["queue_id"], job["job_id"], job["token"])
                if client.finish("soak", *path)[0] == 200:
                    history.finished.append(f"{job['queue_id']}/{job['job_id']}")


def dead_jobs(url: str) -> list[str]:
    """All dead jobs, page by page."""
    found: list[str] = []
    page = None
    with Client(url) as client:
        while page is None or page:
            page = client.call("GET", f"/dead/soak/?offset={len(found)}")[1]["jobs"]
            found += [f"{job['queue_id']}/{job['job_id']}" for job in page]
    return found
