"""Prints the README's figures, each beside its rival's: ``python -m benchmarks`` (some 3 minutes).

    python -m benchmarks [waiting] [pairs] [enqueue] [memory]

Needs redis-server on PATH and, for the rival (see ``rival.py``), PyPI. Both have a private Redis
without persistence, one server process, and the same load of 16 connections.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from rate_limited_queue.processes import Child, free_port, running_server, wait_ready
from rate_limited_queue.scripts import base_key, script, types_key

from . import rival

QUEUES = (1, 1_000, 10_000, 100_000)
#: Seconds of one load, and how often each is run.
SECONDS = 1.5
ROUNDS = 3
PREFIX = "bench"


class Setup:
    """A private Redis, a server of ours and the rival's."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.redis_port = free_port()
        program = shutil.which("redis-server")
        if program is None:
            sys.exit("redis-server is not on PATH: apt-get install redis-server")
        command = [program, "--port", str(self.redis_port), "--save", "", "--dir", str(folder)]
        store = Child(command, folder / "redis.log")
        stack.callback(store.kill)
        self.redis = redis.Redis(port=self.redis_port)
        while True:
            with contextlib.suppress(redis.RedisError):
                self.redis.ping()
                break
            time.sleep(0.05)
        environ = {
            "RLQ_REDIS_CONN_TYPE": "tcp_sock",
            "RLQ_REDIS_PORT": str(self.redis_port),
            "RLQ_REDIS_KEY_PREFIX": PREFIX,
            "RLQ_SHARQ_JOB_EXPIRE_INTERVAL": "600000",
        }
        self.url = stack.enter_context(running_server(folder, environ))
        self.port = int(self.url.rpartition(":")[2])
        self.rival_port = free_port()
        other = rival.start(self.rival_port, self.redis_port, folder)
        stack.callback(other.kill)
        wait_ready(other, f"http://127.0.0.1:{self.rival_port}")

    def fill(self, queue_type: str, queues: int, jobs: int, size: int = 5) -> None:
        """Enqueue jobs by our own script."""
        found, base = script("enqueue"), base_key(PREFIX, queue_type)
        sha = self.redis.script_load(found.source.decode())
        payload = json.dumps({"text": "x" * size}, separators=(",", ":"))
        pipe = self.redis.pipeline(transaction=False)
        pipe.zadd(types_key(PREFIX), {queue_type: int(time.time())})
        for number in range(jobs):
            pipe.evalsha(sha, 1, base, f"q{number % queues}", f"j{number}", payload, 0, -1, -1)
            if number % 1000 == 999:
                pipe.execute()
        pipe.execute()

    def load(self, port: int, queue_type: str, what: str, queues: int) -> dict[str, float]:
        """Run the load against a server."""
        command = [sys.executable, "-m", "benchmarks.load", str(port), queue_type, what]
        command += [str(SECONDS), str(queues)]
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
        )
        if done.returncode:
            sys.exit(done.stderr)
        found: dict[str, float] = json.loads(done.stdout)
        return found


def pairs(setup: Setup) -> Iterator[str]:
    """Dequeue and finish, by the count of ready queue ids; medians of rounds in turn."""
    setup.redis.flushall()
    for queues in QUEUES:
        setup.fill(f"b{queues}", queues, max(60_000, 2 * queues))
        rival.fill(setup.redis_port, f"b{queues}", queues, max(15_000, queues), 5)
    yield f"{'dequeue+finish pairs/s, ready queue ids':44}{'ours':>10}{'rival':>10}{'ratio':>8}"
    found = rounds(setup, "pairs")
    yield from rates(found)
    yield f"{'p99 of a dequeue in ms, ready queue ids':44}{'ours':>10}{'rival':>10}{'ratio':>8}"
    for queues, (ours, theirs) in found.items():
        one, other = median(ours, "p99"), median(theirs, "p99")
        yield f"{queues:>44,}{one:>10,.1f}{other:>10,.1f}{one / other:>8,.3f}"


def enqueue(setup: Setup) -> Iterator[str]:
    """Enqueue, by the count of queue ids; medians of rounds in turn."""
    setup.redis.flushall()
    yield f"{'enqueues/s, queue ids':44}{'ours':>10}{'rival':>10}{'ratio':>8}"
    yield from rates(rounds(setup, "enqueue"))


Result = dict[int, tuple[list[dict[str, float]], list[dict[str, float]]]]


def rounds(setup: Setup, what: str) -> Result:
    """Load ours and the rival in turn, at each count of queue ids, in rounds."""
    found: Result = {queues: ([], []) for queues in QUEUES}
    for number in range(ROUNDS):
        for queues, (ours, theirs) in found.items():
            # A round of enqueues must not meet the job ids of the round before.
            queue_type = f"b{queues}" if what == "pairs" else f"e{queues}-{number}"
            ours.append(setup.load(setup.port, queue_type, what, queues))
            theirs.append(setup.load(setup.rival_port, queue_type, what, queues))
    return found


def median(found: list[dict[str, float]], name: str) -> float:
    """The median of one figure."""
    return statistics.median(one[name] for one in found)


def rates(found: Result) -> Iterator[str]:
    """The lines of a table of rates, and how flat ours are."""
    ours = []
    for queues, (one, other) in found.items():
        ours.append(median(one, "rate"))
        theirs = median(other, "rate")
        yield f"{queues:>44,}{ours[-1]:>10,.0f}{theirs:>10,.0f}{ours[-1] / theirs:>8,.1f}"
    yield f"{'slowest of ours to fastest':44}{min(ours) / max(ours):>10.2f}"


def memory(setup: Setup) -> Iterator[str]:
    """Bytes of Redis for a queued job with a payload of 100 characters."""

    def used() -> int:
        info: Any = setup.redis.info("memory")
        return int(info["used_memory"])

    yield f"{'bytes of Redis a queued job':44}{'ours':>10}{'rival':>10}{'ratio':>8}"
    for queues in (100, 100_000):
        found = []
        for fill in (setup.fill, lambda *a: rival.fill(setup.redis_port, *a)):
            setup.redis.flushall()
            before = used()
            fill("bench", queues, 100_000, 100)
            found.append((used() - before) / 100_000)
        label = f"{100_000 // queues:,} in each of {queues:,} queue ids"
        yield f"{label:>44}{found[0]:>10,.0f}{found[1]:>10,.0f}{found[0] / found[1]:>8,.2f}"


def waiting(setup: Setup) -> Iterator[str]:
    """What 2,000 clients that wait for a job cost the store."""

    def commands() -> float:
        info: Any = setup.redis.info("stats")
        count, started = int(info["total_commands_processed"]), time.monotonic()
        time.sleep(4)
        info = setup.redis.info("stats")
        passed = time.monotonic() - started
        return (int(info["total_commands_processed"]) - count - 1) / passed

    setup.redis.flushall()
    before = commands()
    sockets = []
    for _ in range(2000):
        found = socket.create_connection(("127.0.0.1", setup.port))
        found.sendall(b"GET /dequeue/bench/?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n")
        sockets.append(found)
    time.sleep(2)
    during = commands()
    for found in sockets:
        found.close()
    label = "commands/s of the store, both servers idle"
    yield f"{label:44}{before:>10,.1f}"
    yield f"{'the same with 2,000 waiting clients of ours':44}{during:>10,.1f}"


def main() -> None:
    """Run the benchmarks that are named, or all."""
    steps = {"waiting": waiting, "pairs": pairs, "enqueue": enqueue, "memory": memory}
    wanted = sys.argv[1:] or list(steps)
    if set(wanted) - set(steps):
        sys.exit(__doc__)
    rival.install()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        setup = Setup(Path(folder), stack)
        info: Any = setup.redis.info("server")
        print(f"{machine}, Redis {info['redis_version']}; the rival is SharQ Server", flush=True)
        for name in wanted:
            print(flush=True)
            for line in steps[name](setup):
                print(line, flush=True)


if __name__ == "__main__":
    main()
