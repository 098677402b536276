"""The server as a program: settings, token, worker processes, the embedded store, the document."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rate_limited_queue.client import Client
from rate_limited_queue.embedded import answers, socket_path
from rate_limited_queue.processes import Child, free_port, running_server, wait_ready

Start = Callable[..., str]


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rate_limited_queue.cli", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_demo_counts_releases_and_limits_at_one_moment() -> None:
    done = run("demo", "--seconds", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.findall(r"(\d+) of (\d+)", done.stdout)
    assert len(counts) == 50
    assert [pair for pair in counts if int(pair[0]) > int(pair[1])] == []


def test_a_token_is_asked_for(start_server: Start) -> None:
    url = start_server(RLQ_SERVER_TOKEN="s3cret-token")
    with Client(url) as anyone, Client(url, token="s3cret-token") as known:
        assert anyone.call("GET", "/")[0] == 200, "the readiness check"
        for path in ("/dequeue/sms/", "/metrics/", "/prometheus/"):
            status, answer = anyone.call("GET", path)
            assert (status, answer["status"]) == (401, "failure")
        with Client(url, token="s3cret-tokem") as wrong:
            assert wrong.dequeue("sms")[0] == 401
        assert known.enqueue("sms", "a", "1", 0)[0] == 201
        assert known.dequeue("sms")[0] == 200


def test_several_worker_processes_share_a_port(start_server: Start) -> None:
    with Client(start_server("--workers", "2")) as client:
        for number in range(20):
            client.enqueue("sms", "a", str(number), 0)
            client.close()  # the next connection may be another process's
        taken = []
        for _ in range(20):
            taken.append(client.dequeue("sms")[1]["job_id"])
            client.close()
        assert taken == [str(number) for number in range(20)]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_is_stopped_lets_nobody_wait(
    tmp_path: Path, environ: dict[str, str], workers: str
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "rate_limited_queue.cli", "serve"]
    options = ["--port", str(port), "--workers", workers]
    child = Child([*command, *options], tmp_path / "server.log", environ, tmp_path)
    try:
        wait_ready(child, url := f"http://127.0.0.1:{port}")
        with ThreadPoolExecutor() as pool, Client(url) as client:
            answer = pool.submit(client.dequeue, "sms", 50)
            time.sleep(0.5)
            os.kill(child.pid, signal.SIGTERM)
            assert answer.result(5) == (404, {"status": "failure"})
        assert child.wait(5) == 0
        assert "Traceback" not in child.text()
    finally:
        child.kill()


def test_the_references_sample_file_serves(
    tmp_path: Path, environ: dict[str, str], prefix: str
) -> None:
    log = tmp_path / "logs" / "sharq.log"
    file = tmp_path / "sharq.conf"
    file.write_text(f"""
[sharq]
job_expire_interval  : 1000 ; in milliseconds
job_requeue_interval : 1000 ; in milliseconds

[sharq-server]
host                 : 127.0.0.1
port                 : 8080
workers              : 1 ; optional
accesslog            : {log} ; optional

[redis]
db                   : {environ["RLQ_REDIS_DB"]}
key_prefix           : {prefix}
conn_type            : tcp_sock ; or unix_sock
;; unix connection settings
unix_socket_path     : /tmp/redis.sock
;; tcp connection settings
port                 : {environ["RLQ_REDIS_PORT"]}
host                 : {environ["RLQ_REDIS_HOST"]}
""")
    password = {k: v for k, v in environ.items() if k == "RLQ_REDIS_PASSWORD"}
    with running_server(tmp_path, password, "-c", str(file)) as url, Client(url) as client:
        assert client.enqueue("sms", "a", "1", 0)[0] == 201
        assert client.dequeue("sms", wait=1)[0] == 200
    assert '"POST /enqueue/sms/a/ HTTP/1.1" 201' in log.read_text()


def test_without_any_redis_the_embedded_one_keeps_the_jobs(tmp_path: Path) -> None:
    for expected in (404, 200):
        with running_server(tmp_path, {}) as url, Client(url) as client:
            assert client.dequeue("sms")[0] == expected
            assert client.enqueue("sms", "a", str(expected), 0)[0] == 201
    folder = tmp_path / ".rate-limited-queue"
    assert (folder / "appendonlydir").is_dir()
    assert not answers(socket_path(folder)), "the store ends with its server"


def test_two_servers_share_an_embedded_store(tmp_path: Path) -> None:
    with (
        running_server(tmp_path, {}) as one,
        running_server(tmp_path, {}) as two,
        Client(one) as first,
        Client(two) as second,
    ):
        first.enqueue("sms", "a", "1", 0)
        assert second.dequeue("sms")[1]["job_id"] == "1"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"RLQ_CONFIG": "/nowhere/at-all.conf"}, ["/nowhere/at-all.conf", "cannot be read"]),
        ({"RLQ_SERVER_WORKERS": "many"}, ["RLQ_SERVER_WORKERS", "'many'", "whole number"]),
        ({"RLQ_REDIS_CONN_TYPE": "tcp"}, ["conn_type", "'tcp'", "tcp_sock, unix_sock"]),
        ({"RLQ_SERVER_ACCESSLOG": "/proc/no/log"}, ["accesslog", "/proc/no/log"]),
        ({"RLQ_REDIS_DIRECTORY": "/proc/no"}, ["directory", "/proc/no"]),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("serve", "--port", "0", **environ)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_prometheus(client: Client) -> None:
    for number in range(3):
        client.enqueue("sms", "a", str(number), 60_000)
    client.dequeue("sms")
    client.finish("sms", "a", "0")
    client._connection.request("GET", "/prometheus/")
    answer = client._connection.getresponse()
    lines = answer.read().decode().splitlines()
    assert str(answer.getheader("content-type")).startswith("text/plain; version=0.0.4")
    for line in (
        'rate_limited_queue_waiting_jobs{type="sms"} 2',
        'rate_limited_queue_active_jobs{type="sms"} 0',
        'rate_limited_queue_due_queue_ids{type="sms"} 0',
        'rate_limited_queue_enqueued_total{type="sms"} 3',
        'rate_limited_queue_dequeued_total{type="sms"} 1',
        'rate_limited_queue_finished_total{type="sms"} 1',
        "rate_limited_queue_waiting_requests 0",
    ):
        assert line in lines


def test_schemathesis_finds_no_server_error(start_server: Start, tmp_path: Path) -> None:
    examples = "50" if os.environ.get("TEST_FULL") else "5"
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "schemathesis"), "run"),
            start_server(RLQ_SERVER_MAX_WAIT=0) + "/openapi.json",
            *("--checks", "not_a_server_error,status_code_conformance", "--no-color"),
            *("--phases", "coverage,fuzzing,stateful", "--max-examples", examples),
            *("--seed", "1", "--request-timeout", "10", "--suppress-health-check", "all"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
