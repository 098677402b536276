"""Brokers that say nothing: a host that does not answer, that vanishes, or that is frozen."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from cadasta.workertoolbox import UnconfirmedError
from tests.acceptance.deployment import Deployment
from tests.services import PrivateRabbitMQ, Process
from tests.services.network import NoNamespaces, VanishingHost, deaf_host, mute_host

#: Seconds in which a host that is gone without a word has to be noticed and left.
NOTICED = 60.0
#: Seconds to connect, below the default, so that nobody waits long for a host that says nothing.
BRIEF = {"broker_connection_timeout": 1}


def took(action: Callable[[], Any]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


@contextmanager
def frozen(server: PrivateRabbitMQ) -> Iterator[None]:
    """Let no process of it run; its system still answers for it."""
    assert server._process is not None
    os.killpg(server._process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(server._process.pid, signal.SIGCONT)


@pytest.fixture(params=["deaf", "mute"])
def silent_url(request: pytest.FixtureRequest, rabbitmq_url: str) -> Iterator[str]:
    """A list of brokers: one that is silent, and a real one."""
    base, _, vhost = rabbitmq_url.rpartition("/")
    user = base.rpartition("@")[0]
    with {"deaf": deaf_host, "mute": mute_host}[request.param]() as port:
        yield f"{user}@127.0.0.1:{port}/{vhost};{rabbitmq_url}"


@pytest.fixture
def on_a_list(silent_url: str, postgres_url: str, tmp_path: Path) -> Iterator[Deployment]:
    settings = {
        "broker_url": silent_url,
        "result_backend": f"toolbox+{postgres_url}",
        **BRIEF,
    }
    with closing(Deployment(tmp_path, settings)) as deployment:
        yield deployment


def test_the_second_broker_is_reached(on_a_list: Deployment) -> None:
    deployment = on_a_list
    first = took(lambda: deployment.app.send_task("export.add", (1, 2)))
    again = took(lambda: deployment.app.send_task("export.add", (1, 2)))
    assert first < 10 and again < 1
    monitor = deployment.start("monitor")
    urls = deployment.settings["broker_url"].split(";")
    silent, real = (url.rpartition("@")[2] for url in urls)
    log = monitor.log_text()
    assert f"{silent}: " in log and "trying the next one" in log
    assert f"Recording platform.fifo of amqp://guest:**@{real}" in log.replace("%2F", "/")
    worker = deployment.start("worker", "one", "-c", "1")
    result = deployment.app.send_task("export.add", (1, 2))
    assert result.get(timeout=60) == 3
    deployment.wait_until(lambda: deployment.count() == 3, "all records")
    assert worker.running
    deployment.stop_all()


@pytest.fixture
def vanishing(rabbitmq_url: str, tmp_path: Path) -> Iterator[tuple[VanishingHost, str]]:
    """A host that passes on to the shared RabbitMQ, and its URL."""
    base, _, vhost = rabbitmq_url.rpartition("/")
    user, _, address = base.rpartition("@")
    if not address.startswith(("127.0.0.1", "localhost")):
        pytest.skip("RabbitMQ is not on this machine")
    try:
        with VanishingHost(int(address.rpartition(":")[2]), tmp_path) as host:
            yield host, f"{user}@{host.address}:{host.port}/{vhost}"
    except NoNamespaces as error:
        pytest.skip(f"no network namespaces here: {error}")


def wait_for_log(process: Process, words: str) -> None:
    """Wait until the process logs what matches ``words``, for ``NOTICED`` seconds at most."""
    process.wait_for_log(words, timeout=NOTICED)


def test_a_host_that_vanished_is_left(
    vanishing: tuple[VanishingHost, str], rabbitmq_url: str, postgres_url: str, tmp_path: Path
) -> None:
    host, url = vanishing
    settings = {
        "broker_url": f"{url};{rabbitmq_url}",
        "result_backend": f"toolbox+{postgres_url}",
        **BRIEF,
    }
    with closing(Deployment(tmp_path, settings)) as deployment:
        monitor = deployment.start("monitor")
        worker = deployment.start("worker", "one", "-c", "1")
        before = deployment.app.send_task("export.add", (1, 2))
        assert before.get(timeout=60) == 3

        host.vanish()
        # Not UnconfirmedError: the connection is dead, and the next broker takes it.
        seconds = took(lambda: deployment.app.send_task("export.add", (3, 4), task_id="after"))
        wait_for_log(monitor, r"The broker is away(?s:.)*Recording platform.fifo")
        wait_for_log(worker, "(?i)connection to broker lost(?s:.)*Connected to amqp")
        assert seconds < 20
        assert deployment.app.AsyncResult("after").get(timeout=120) == 7
        deployment.wait_until(lambda: deployment.count() == 2, "both records", timeout=120)
        deployment.stop_all()


def test_the_only_host_vanishes(
    vanishing: tuple[VanishingHost, str], postgres_url: str, tmp_path: Path
) -> None:
    host, url = vanishing
    settings = {"broker_url": url, "result_backend": f"toolbox+{postgres_url}", **BRIEF}
    with closing(Deployment(tmp_path, settings)) as deployment:
        monitor = deployment.start("monitor")
        worker = deployment.start("worker", "one", "-c", "1")
        deployment.app.send_task("export.add", (1, 2)).get(timeout=60)
        host.vanish()
        with pytest.raises(OperationalError) as told:
            deployment.app.send_task("export.add", (3, 4))
        assert not isinstance(told.value, UnconfirmedError)
        wait_for_log(monitor, "The broker is away")
        wait_for_log(worker, "(?i)connection to broker lost")
        assert took(lambda: monitor.stop(30)) < 10
        assert monitor.returncode == 0
        host.appear()
        assert deployment.app.send_task("export.add", (5, 6)).get(timeout=60) == 11


def test_a_frozen_broker_is_left(
    private_rabbitmq: PrivateRabbitMQ, postgres_url: str, tmp_path: Path
) -> None:
    """Its system still acknowledges what it is sent: only heartbeats and clocks tell."""
    settings = {
        "broker_url": private_rabbitmq.url,
        "result_backend": f"toolbox+{postgres_url}",
        "broker_heartbeat": 2,
        "broker_transport_options": {"confirm_timeout": 2, "answer_timeout": 2},
        **BRIEF,
    }
    with closing(Deployment(tmp_path, settings)) as deployment:
        monitor = deployment.start("monitor")
        worker = deployment.start("worker", "one", "-c", "1")
        deployment.app.send_task("export.add", (1, 2)).get(timeout=60)
        connection = deployment.app.connection_for_write()
        connection.ensure_connection()
        with frozen(private_rabbitmq):
            with pytest.raises(UnconfirmedError):
                deployment.app.send_task("export.add", (3, 4))
            seconds = took(lambda: pytest.raises(OSError, connection.channel))
            assert seconds < 10
            assert took(connection.release) < 5
            wait_for_log(monitor, "The broker is away")
            wait_for_log(worker, "(?i)connection to broker lost")
            assert took(lambda: monitor.stop(30)) < 10
            assert monitor.returncode == 0
        assert deployment.app.send_task("export.add", (5, 6)).get(timeout=60) == 11


def test_a_long_task_of_a_solo_pool_keeps_its_connection(
    rabbitmq_url: str, postgres_url: str, tmp_path: Path
) -> None:
    """RabbitMQ closes a connection without heartbeats; its task would then run again, for ever."""
    settings = {
        "broker_url": rabbitmq_url,
        "result_backend": f"toolbox+{postgres_url}",
        "broker_heartbeat": 1,
        "DURABLE": True,
    }
    with closing(Deployment(tmp_path, settings)) as deployment:
        worker = deployment.start("worker", "one", "-P", "solo")
        deployment.app.send_task("export.sleep", (6,)).get(timeout=60)
        assert deployment.app.send_task("export.add", (1, 2)).get(timeout=60) == 3
        assert len(deployment.notes("sleeping")) == 1
        assert "lost" not in worker.log_text()
