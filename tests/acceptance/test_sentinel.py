"""A failover by Redis Sentinel: publishers, workers and monitor go on with the new master."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from tests.acceptance.deployment import Deployment
from tests.conftest import StartProcess
from tests.services import PrivateRedis, free_port, wait_until

MASTER = "themaster"


@pytest.fixture
def replica(private_redis: PrivateRedis) -> Iterator[PrivateRedis]:
    with PrivateRedis() as server, redis.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", private_redis.port)
        wait_until(
            lambda: client.info("replication")["master_link_status"] == "up",
            what="the replica",
        )
        yield server


@pytest.fixture
def sentinel(
    private_redis: PrivateRedis, replica: PrivateRedis, run_process: StartProcess, tmp_path: Path
) -> Iterator[redis.Redis]:
    port = free_port()
    file = tmp_path / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor {MASTER} 127.0.0.1 {private_redis.port} 1\n"
        f"sentinel down-after-milliseconds {MASTER} 2000\n"
        f"sentinel failover-timeout {MASTER} 5000\n"
    )
    process = run_process(PrivateRedis.path(), file, "--sentinel")
    with redis.Redis(port=port, decode_responses=True) as client:
        process.wait_for_log("monitor master")
        wait_until(lambda: client.sentinel_slaves(MASTER), 30, "the sentinel to find the replica")
        yield client


def test_it_is_waited_out(
    private_redis: PrivateRedis, replica: PrivateRedis, sentinel: redis.Redis, tmp_path: Path
) -> None:
    port = sentinel.connection_pool.connection_kwargs["port"]
    settings = {
        "broker_url": f"sentinel://127.0.0.1:{port}/0",
        "broker_transport_options": {"master_name": MASTER},
        "result_backend": f"toolbox+sqlite:///{tmp_path}/ledger.sqlite3",
    }
    with closing(Deployment(tmp_path, settings)) as deployment:
        deployment.start("worker", "one")
        deployment.start("monitor")
        assert deployment.app.send_task("export.add", (1, 2)).get(timeout=30) == 3
        sentinel.sentinel_failover(MASTER)
        wait_until(
            lambda: int(sentinel.sentinel_master(MASTER)["port"]) == replica.port,  # type: ignore[index]
            30,
            "the failover",
        )
        tasks = [deployment.app.send_task("export.add", (n, n)) for n in range(10)]
        assert [task.get(timeout=60) for task in tasks] == [2 * n for n in range(10)]
        deployment.wait_until(lambda: deployment.count() == 11, "11 records")
        deployment.stop_all()
