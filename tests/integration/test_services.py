"""Each service fixture does what it says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
import redis
from kombu import Connection, Queue
from sqlalchemy import create_engine, text

from tests.conftest import StartProcess
from tests.services import (
    SERVICES,
    HttpVhosts,
    PrivatePostgres,
    PrivateRabbitMQ,
    Process,
    VhostPool,
    connect_once,
    create_database,
    drop_database,
    wait_until,
)
from tests.services.rabbitmq import ControlVhosts

ROOT = Path(__file__).parents[2]


def round_trip(url: str, queue: str = "probe", **options: Any) -> Any:
    """Publish a message, consume it and return its body."""
    with Connection(url, transport_options=options, connect_timeout=5) as connection:
        with connection.Producer() as producer:
            target = Queue(queue)
            producer.publish({"n": 1}, routing_key=queue, declare=[target])
        received: list[Any] = []

        def receive(body: Any, message: Any) -> None:
            message.ack()
            received.append(body)

        with connection.Consumer([target], callbacks=[receive]):
            while not received:
                connection.drain_events(timeout=10)
        return received[0]


def select_1(url: str) -> int:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT 1")).scalar_one())
    finally:
        engine.dispose()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_rabbitmq_vhost_is_fresh(rabbitmq_url: str) -> None:
    assert "/toolbox-test-" in rabbitmq_url
    assert round_trip(rabbitmq_url) == {"n": 1}


def test_rabbitmq_vhost_is_deleted(vhost_pool: VhostPool) -> None:
    with closing(VhostPool(vhost_pool.vhosts, SERVICES["rabbitmq"].url)) as pool:
        url = pool.take()
        pool.give_back(url)
        assert round_trip(url) == {"n": 1}
    with pytest.raises(Exception, match="vhost"):
        connect_once(url)


@pytest.mark.parametrize("end", ["return", "failure", "interrupt", "exit"])
def test_rabbitmq_vhosts_are_deleted_however_it_ends(vhost_pool: VhostPool, end: str) -> None:
    """A virtual host that nobody gave back once stayed."""
    ends = {"failure": ValueError, "interrupt": KeyboardInterrupt, "exit": SystemExit}
    urls = []
    with (
        pytest.raises(ends[end]) if end in ends else nullcontext(),
        VhostPool(vhost_pool.vhosts, SERVICES["rabbitmq"].url, batch=2) as pool,
    ):
        urls += [pool.take(), pool.take(), pool.take()]
        pool.give_back(urls[0])
        if end in ends:
            raise ends[end]
    for url in urls:
        with pytest.raises(Exception, match="vhost"):
            connect_once(url)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_benchmark_that_is_stopped_leaves_no_virtual_host(
    vhost_pool: VhostPool, run_process: StartProcess, tmp_path: Path, stop: signal.Signals
) -> None:
    if not isinstance(vhost_pool.vhosts, ControlVhosts):
        pytest.skip("its virtual hosts are not made by rabbitmqctl")
    told = tmp_path / "rabbitmqctl"  # It tells what it was asked to do.
    told.write_text(f'#!/bin/sh\necho "$@"\nexec {shlex.join(vhost_pool.vhosts.command)} "$@"\n')
    told.chmod(0o755)
    asked = tmp_path / "asked"
    control = f"sh -c '{told} \"$@\" | tee -a {asked} | tail -n 1' --"
    process = run_process(
        *(sys.executable, "-m", "benchmarks", "--only", "publish", "--rounds", "1000"),
        env={"TEST_RABBITMQ_CTL": control, "TEST_RABBITMQ_MANAGEMENT_URL": ""},
        cwd=ROOT,
    )
    process.wait_for(lambda: asked.exists() and "add" in asked.read_text(), what="it is made")
    [name] = re.findall(r"toolbox-test-\w+", asked.read_text())
    process.send_signal(stop)
    assert process.wait(30) != 0
    assert asked.read_text().count(name) == 2  # it was made, and removed
    parts = urlsplit(SERVICES["rabbitmq"].url)
    with pytest.raises(Exception, match="vhost"):
        connect_once(f"{parts.scheme}://{parts.netloc}/{name}")


def test_postgres_database_is_empty_and_own(postgres_url: str) -> None:
    assert postgres_url.startswith("postgresql+psycopg2://")
    assert "/toolbox_test_" in postgres_url
    assert select_1(postgres_url) == 1


def test_mariadb_database_is_empty_and_own(mariadb_url: str) -> None:
    assert mariadb_url.startswith("mysql+pymysql://")
    assert "/toolbox_test_" in mariadb_url
    assert select_1(mariadb_url) == 1


@pytest.mark.parametrize("backend", ["postgres_url", "mariadb_url"])
def test_database_is_dropped_under_an_open_transaction(
    backend: str, request: pytest.FixtureRequest
) -> None:
    own_url: str = request.getfixturevalue(backend)
    url = create_database(own_url)
    engine = create_engine(url)
    connection = engine.connect()
    try:
        connection.execute(text("CREATE TABLE held (n integer)"))
        connection.execute(text("INSERT INTO held VALUES (1)"))
        drop_database(own_url, url)
        with pytest.raises(Exception, match="closed|terminat|exist|Lost|nknown|gone|Broken"):
            connection.execute(text("SELECT * FROM held"))
    finally:
        connection.invalidate()
        connection.close()
        engine.dispose()


def test_only_own_databases_are_dropped(postgres_url: str) -> None:
    with pytest.raises(ValueError, match="'postgres' is not a test's own"):
        drop_database(postgres_url, "postgresql+psycopg2://postgres@127.0.0.1/postgres")


def test_redis_prefix_keeps_keys_apart(redis_url: str, redis_prefix: str) -> None:
    assert round_trip(redis_url, global_keyprefix=redis_prefix) == {"n": 1}
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"{redis_prefix}left", "x")
        assert client.exists(f"{redis_prefix}left") == 1


def test_sqs_queue(
    sqs_environment: dict[str, str], sqs_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sqs_environment.items():
        monkeypatch.setenv(name, value)
    body = round_trip("sqs://", queue_name_prefix=sqs_prefix, wait_time_seconds=1)
    assert body == {"n": 1}


def test_private_postgres_stops_and_keeps_its_data(private_postgres: PrivatePostgres) -> None:
    engine = create_engine(private_postgres.url, pool_pre_ping=True)
    try:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE kept (n integer)"))
            connection.execute(text("INSERT INTO kept VALUES (7)"))
        private_postgres.stop()
        with pytest.raises(psycopg2.OperationalError, match="refused"):
            private_postgres.ask()
        private_postgres.start()
        private_postgres.kill()
        private_postgres.restart()
        with engine.connect() as connection:
            assert connection.execute(text("SELECT n FROM kept")).scalar_one() == 7
    finally:
        engine.dispose()


def test_private_postgres_is_fresh_and_runs_again(private_postgres: PrivatePostgres) -> None:
    engine = create_engine(private_postgres.url)
    try:
        with engine.connect() as connection:
            tables = connection.execute(text("SELECT to_regclass('kept')")).scalar_one()
        assert tables is None
    finally:
        engine.dispose()


@pytest.mark.slow
def test_private_rabbitmq_stops_and_keeps_its_data(private_rabbitmq: PrivateRabbitMQ) -> None:
    with Connection(private_rabbitmq.url) as connection, connection.Producer() as producer:
        producer.publish({"n": 7}, routing_key="kept", declare=[Queue("kept")], delivery_mode=2)
    private_rabbitmq.stop()
    with pytest.raises(OSError, match="refused"):
        private_rabbitmq.ask()
    private_rabbitmq.start()
    with Connection(private_rabbitmq.url) as connection:
        message = wait_until(lambda: connection.default_channel.basic_get("kept"), what="message")
        assert message.body == '{"n": 7}'


@pytest.mark.slow
def test_vhosts_by_the_management_interface() -> None:
    with PrivateRabbitMQ(plugins=("rabbitmq_management",)) as server:
        with VhostPool(HttpVhosts(server.management_url, "guest"), server.root_url) as pool:
            url = pool.take()
            assert round_trip(url) == {"n": 1}
            HttpVhosts(server.management_url, "guest").change([], ["toolbox-test-of-nobody"])
        with pytest.raises(Exception, match="vhost"):
            connect_once(url)


def test_process_log_and_stop(run_process: StartProcess, tmp_path: Path) -> None:
    program = "import signal, sys; print('up', flush=True); signal.pause()"
    process = run_process(sys.executable, "-c", program, cwd=tmp_path)
    process.wait_for_log("up")
    assert process.running
    assert process.stop() == -15
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_process_that_ends_early_is_told_with_its_log(run_process: StartProcess) -> None:
    process = run_process(sys.executable, "-c", "print('out of luck'); raise SystemExit(3)")
    with pytest.raises(AssertionError, match=r"ended with code 3 before .*(?s:.)*out of luck"):
        process.wait_for_log("never printed", timeout=20)


def test_process_that_ignores_the_signal_is_killed_with_its_children(
    run_process: StartProcess, tmp_path: Path
) -> None:
    program = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "print(f'child {child.pid}.', flush=True)\n"
        "signal.pause()\n"
    )
    process = run_process(sys.executable, "-c", program)
    child = int(process.wait_for_log(r"child (\d+)\.")[1])
    assert process.stop(timeout=0.2) == -9
    wait_until(lambda: not is_alive(child), what="the child's end")


def test_celery_runs(run_celery: Callable[..., Process]) -> None:
    process = run_celery("--version")
    assert process.wait() == 0
    assert process.log_text().startswith("5.")
