"""A Redis cluster: every key of a type lies in one slot, so that the scripts are allowed there."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from rate_limited_queue.client import Client
from rate_limited_queue.processes import Child, free_port, running_server


@pytest.fixture
def cluster_port(tmp_path: Path) -> Iterator[int]:
    """The port of a cluster of two nodes, each with half of the slots."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.fail("redis-server is not on PATH: apt-get install redis-server", pytrace=False)
    with contextlib.ExitStack() as stack:
        clients = []
        for name in ("one", "two"):
            port = free_port_pair()
            command = [program, "--port", str(port), "--cluster-enabled", "yes", "--save", ""]
            command += ["--cluster-config-file", f"{name}.conf", "--bind", "127.0.0.1"]
            child = Child(command, tmp_path / f"{name}.log", cwd=tmp_path)
            stack.callback(child.kill)
            clients.append((port, stack.enter_context(redis.Redis(port=port))))
        for _, client in clients:
            wait_until(client.ping)
        clients[0][1].execute_command("CLUSTER ADDSLOTSRANGE", 0, 8191)
        clients[1][1].execute_command("CLUSTER ADDSLOTSRANGE", 8192, 16383)
        clients[0][1].execute_command("CLUSTER MEET", "127.0.0.1", clients[1][0])
        for _, client in clients:
            wait_until(partial(complete, client))
        yield clients[0][0]


def free_port_pair() -> int:
    """A port whose bus, 10,000 above it, is free as well, and given to no outgoing connection."""
    while True:
        port = free_port()
        if port < 22_700:
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port + 10_000))
                return port


def complete(node: redis.Redis) -> bool:
    """Whether a node knows who has all slots."""
    info: Any = node.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
    return bool(info["cluster_state"] == "ok")


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a server answers as it should."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(redis.RedisError):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_whole_api_on_a_cluster(cluster_port: int, tmp_path: Path) -> None:
    environ = {
        "RLQ_REDIS_CONN_TYPE": "tcp_sock",
        "RLQ_REDIS_PORT": str(cluster_port),
        "RLQ_REDIS_CLUSTERED": "true",
        "RLQ_SHARQ_JOB_REQUEUE_INTERVAL": "50",
        "RLQ_SHARQ_JOB_EXPIRE_INTERVAL": "300",
    }
    types = [f"type{number}" for number in range(8)]
    with running_server(tmp_path, environ) as url, Client(url) as client:
        for queue_type in types:
            for number in range(2):
                answer = client.enqueue(queue_type, "a", str(number), 200, requeue_limit=0)
                assert answer == (201, {"status": "queued"})
        assert client.call("GET", "/metrics/")[1]["queue_types"] == types
        for queue_type in types:
            first = client.dequeue(queue_type)[1]
            assert client.finish(queue_type, "a", first["job_id"], first["token"])[0] == 200
            second = client.dequeue(queue_type, wait=2)[1]
            assert int(second["token"]) - int(first["token"]) >= 200_000
            assert client.call("GET", f"/job/{queue_type}/a/1/")[1]["state"] == "active"
            assert client.interval(queue_type, "a", 5)[0] == 200
        time.sleep(0.6)
        for queue_type in types:
            assert client.call("GET", f"/dead/{queue_type}/")[1]["total"] == 1
            assert client.call("GET", f"/metrics/{queue_type}/")[1]["queue_ids"] == []
        client.enqueue(types[0], "a", "2", 0)
        purge = {"purge_all": True}
        assert client.call("DELETE", f"/deletequeue/{types[0]}/a/", purge)[1]["status"] == "Success"
        assert client.call("GET", "/deepstatus/")[0] == 200
