"""The load: 16 connections that call as fast as they are answered, in a process of their own.

    python -m benchmarks.load PORT TYPE pairs|enqueue SECONDS QUEUES

Prints one line of JSON: calls (pairs or enqueues) a second, and the p50 and p99 in ms of a dequeue
or an enqueue. The HTTP is written by hand, so that the load costs little beside the server.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
import time
from typing import Any

import uvloop

CONNECTIONS = 16
_LENGTH = re.compile(rb"content-length: *(\d+)", re.I)


class Caller(asyncio.Protocol):
    """One connection with one call at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("closed by the server"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        found = _LENGTH.search(self._buffer, 0, end) if end >= 0 else None
        if found and len(self._buffer) >= end + 4 + int(found[1]) and self._answer is not None:
            answer, self._buffer = self._buffer, b""
            self._answer.set_result(answer)

    async def call(self, request: bytes) -> bytes:
        """Send a request and return the answer with its head."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer


async def pairs(caller: Caller, queue_type: str, until: float, times: list[float]) -> int:
    """Dequeue and finish; how many pairs."""
    count = missed = 0
    dequeue = f"GET /dequeue/{queue_type}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    while (started := time.perf_counter()) < until:
        answer = await caller.call(dequeue)
        times.append(time.perf_counter() - started)
        head, _, body = answer.partition(b"\r\n\r\n")
        if head[9:12] != b"200":
            # With one queue id the rival's clock sometimes says that it is not due yet.
            missed += 1
            if missed > 1000:
                raise RuntimeError(f"nothing to dequeue: {head[:40]!r}")
            continue
        job = json.loads(body)
        path = f"/finish/{queue_type}/{job['queue_id']}/{job['job_id']}/"
        finish = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        answer = await caller.call(finish.encode())
        if answer[9:12] != b"200":
            raise RuntimeError(f"not finished: {answer[:40]!r}")
        count += 1
    return count


async def enqueues(
    caller: Caller, queue_type: str, until: float, times: list[float], names: itertools.count[int]
) -> int:
    """Enqueue; how many."""
    count = 0
    queues = int(sys.argv[5])
    while (started := time.perf_counter()) < until:
        number = next(names)
        body = b'{"job_id":"e%d","interval":0,"payload":{"text":"Hello"}}' % number
        head = b"POST /enqueue/%b/q%d/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        answer = await caller.call(head % (queue_type.encode(), number % queues, len(body)) + body)
        times.append(time.perf_counter() - started)
        if answer[9:12] != b"201":
            raise RuntimeError(f"not queued: {answer[:40]!r}")
        count += 1
    return count


async def main() -> None:
    port, queue_type, what, seconds = sys.argv[1:5]
    loop = asyncio.get_running_loop()
    callers = [
        (await loop.create_connection(Caller, "127.0.0.1", int(port)))[1]
        for _ in range(CONNECTIONS)
    ]
    times: list[float] = []
    names = itertools.count()
    started = time.perf_counter()
    until = started + float(seconds)
    if what == "pairs":
        runs = [pairs(caller, queue_type, until, times) for caller in callers]
    else:
        runs = [enqueues(caller, queue_type, until, times, names) for caller in callers]
    count = sum(await asyncio.gather(*runs))
    passed = time.perf_counter() - started
    times.sort()
    result = {
        "rate": count / passed,
        "p50": times[len(times) // 2] * 1000,
        "p99": times[len(times) * 99 // 100] * 1000,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    uvloop.run(main())
