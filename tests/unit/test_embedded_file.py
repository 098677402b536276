"""The embedded broker's file: threads, forks, deaths, growth and what can be wrong with it."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kombu import Connection, Producer, Queue
from kombu.exceptions import ChannelError, OperationalError

from cadasta.workertoolbox.brokers import transports
from cadasta.workertoolbox.brokers.embedded import transport as embedded
from cadasta.workertoolbox.brokers.embedded.file import File
from cadasta.workertoolbox.errors import BrokerError
from tests.embedded_broker import (
    MONITOR,
    ROOT,
    TASKS,
    WORK,
    Connect,
    Received,
    bodies,
    get,
    publish,
    run,
    size,
)


@pytest.mark.parametrize("shared", [True, False])
def test_threads_publish_at_once(connect: Connect, shared: bool) -> None:
    first = connect()
    publish(first)
    channels = [first.channel() if shared else connect().channel() for _ in range(6)]

    def work(number: int) -> None:
        producer = Producer(channels[number])
        for each in range(50):
            producer.publish([number, each], exchange=TASKS, routing_key="data.sync")

    WORK(first.default_channel).declare()
    MONITOR(first.default_channel).declare()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = sorted([number, each] for number in range(6) for each in range(50))
    assert sorted(bodies(first, WORK)) == sorted(bodies(first, MONITOR)) == everything


def test_a_forked_child_publishes_on_while_the_parent_closes(broker: Path) -> None:
    # Without care the child takes over SQLite's notes of the parent's locks; the parent, when it
    # closes, then deletes the write-ahead log into which the child goes on writing.
    code = """
import os, sys
from tests.embedded_broker import *
transports.register()
parent = Connection(sys.argv[1])
publish(parent, "parent")
here, there = os.pipe()
if os.fork() == 0:
    child = Connection(sys.argv[1])
    publish(child, "child, before")
    os.read(here, 1)
    publish(child, "child, after")
    publish(parent, "child, on the inherited connection")
    os._exit(0)
taken = get(parent, MONITOR)
assert taken.payload == "parent"
publish(parent, "parent again")
taken.ack()
parent.release()
with Connection(sys.argv[1]) as another:
    publish(another, "parent, another")
os.write(there, b"x")
assert os.wait()[1] == 0
"""
    run(code, broker)
    with Connection(embedded.url_for(broker)) as connection:
        assert sorted(bodies(connection)) == [
            "child, after",
            "child, before",
            "child, on the inherited connection",
            "parent",
            "parent again",
            "parent, another",
        ]
        assert "parent" not in bodies(connection, MONITOR)


def test_a_forked_child_that_closes_leaves_the_parents_messages_alone(broker: Path) -> None:
    code = """
import os, sys
from tests.embedded_broker import *
transports.register()
parent = Connection(sys.argv[1])
publish(parent, 1)
consumer = Received(parent, prefetch=1)
assert consumer.drain() == [1]
if os.fork() == 0:
    parent.release()
    with Connection(sys.argv[1]) as child:
        Received(child, MONITOR).drain(1.5)
        os._exit(0 if size(child) == 0 else 1)
assert os.wait()[1] == 0
consumer.messages[0].ack()
assert size(parent) == 0
parent.release()
"""
    run(code, broker)


TAKER = """
import sys, time
from tests.embedded_broker import *
transports.register()
connection = Connection(sys.argv[1])
consumer = Received(connection, WORK, Queue("mine", NEWS, auto_delete=True), prefetch=10)
consumer.drain()
print(len(consumer.messages), flush=True)
consumer.drain(30)
"""


def test_a_dead_consumers_messages_and_queues_are_freed_a_stopped_ones_not(
    connect: Connect, broker: Path
) -> None:
    connection = connect()
    publish(connection, 1, 2, 3)
    command = [sys.executable, "-c", TAKER, embedded.url_for(broker)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as taker:
        assert taker.stdout is not None and taker.stdout.readline() == "3\n"
        other = Received(connect())
        taker.send_signal(signal.SIGSTOP)
        assert other.drain(2.5) == []
        taker.kill()
        start = time.monotonic()
        other.connection.drain_events(timeout=10)
        assert time.monotonic() - start < 5
    assert other.drain() == [1, 2, 3]
    assert all(message.delivery_info["redelivered"] for message in other.messages)
    with pytest.raises(ChannelError, match="no queue 'mine'"):
        size(connection, Queue("mine"))
    assert len(os.listdir(f"{broker}-consumers")) == 1


def test_a_connection_that_was_forgotten_gives_back_what_it_had(connect: Connect) -> None:
    publish(connect(), 1)
    forgotten = Connection(connect().as_uri())
    get(forgotten)
    del forgotten
    gc.collect()
    other = Received(connect())
    other.connection.drain_events(timeout=5)
    assert other.drain() == [1]


def test_the_file_and_its_log_do_not_grow_without_bound(connect: Connect, broker: Path) -> None:
    publisher, consumer = connect(), Received(connect(), WORK, MONITOR, prefetch=500)
    sizes = []
    for _ in range(4):
        publish(publisher, *["x" * 2000] * 1000)
        consumer.drain()
        while consumer.messages:
            consumer.messages[-1].ack(multiple=True)
            consumer.messages.clear()
            consumer.drain()
        sizes.append(broker.stat().st_size)
    assert sizes[-1] <= sizes[0] * 1.1
    assert Path(f"{broker}-wal").stat().st_size < 20_000_000


def not_a_folder(broker: Path) -> None:
    broker.parent.rmdir()
    broker.parent.write_text("a file")


def not_writable(broker: Path) -> None:
    broker.mkdir()


def no_database(broker: Path) -> None:
    broker.write_bytes(b"this is no database at all, only text" * 100)


def other_database(broker: Path) -> None:
    database = sqlite3.connect(broker)
    database.execute("CREATE TABLE ledger (id)")
    database.close()


def future_layout(broker: Path) -> None:
    file = File(str(broker))
    file.rows("SELECT 1")
    file.close()
    database = sqlite3.connect(broker)
    database.execute("PRAGMA user_version=99")
    database.close()


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (not_a_folder, "folder .* cannot be made: .*name another file"),
        (not_writable, "cannot be opened for writing .*Check that this user may write"),
        (no_database, "damaged or no SQLite database .*Move it away"),
        (other_database, "not a broker's. Name another file"),
        (future_layout, "layout 99, this release knows layout 1. Use the release"),
    ],
)
def test_a_file_that_cannot_serve_is_a_permanent_error(
    tmp_path: Path, spoil: Callable[[Path], None], what: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    broker = folder / "broker.sqlite3"
    spoil(broker)
    transports.register()
    connection = Connection(embedded.url_for(broker))
    with pytest.raises(BrokerError, match=what) as caught:
        connection.ensure_connection(max_retries=5)
    assert str(folder) in str(caught.value)
    assert not isinstance(caught.value, connection.connection_errors + connection.channel_errors)
    if spoil is other_database:
        database = sqlite3.connect(broker)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        database.close()


def test_a_file_that_stays_locked_is_an_error_that_passes(connect: Connect, broker: Path) -> None:
    connection = connect(busy_timeout=0.1)
    publish(connection, 1)
    locker = sqlite3.connect(broker, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    with pytest.raises(embedded.BrokerUnavailableError, match="more than 0.1 s.*busy_timeout") as e:
        publish(connection, 2)
    assert isinstance(e.value, connection.connection_errors)
    with pytest.raises(OperationalError, match="locked"):
        publish(connection, 3, retry=True, retry_policy={"max_retries": 1, "interval_start": 0})
    locker.execute("ROLLBACK")
    locker.close()
    publish(connection, 4)
    assert bodies(connection) == [1, 4]


def test_an_acknowledgement_that_failed_is_made_up_for(connect: Connect, broker: Path) -> None:
    connection = connect(busy_timeout=0.1)
    publish(connection, 1, 2)
    consumer = Received(connection, prefetch=2)
    consumer.drain()
    locker = sqlite3.connect(broker, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    with pytest.raises(embedded.BrokerUnavailableError):
        consumer.messages[0].ack()
    locker.execute("ROLLBACK")
    locker.close()
    connection.release()
    assert bodies(connect()) == [2]


def test_an_option_that_cannot_be_is_an_error(connect: Connect) -> None:
    with pytest.raises(BrokerError, match="synchronous='SOMETIMES': use OFF, NORMAL"):
        connect(synchronous="SOMETIMES").connect()
    connection = connect(synchronous="FULL")
    publish(connection, 1)
    assert bodies(connection) == [1]


def test_a_full_disk_is_told_to_the_publisher_and_loses_nothing(broker: Path) -> None:
    # A limit on the size of files is what a full disk is to SQLite.
    code = """
import resource, signal, sys
from tests.embedded_broker import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
transports.register()
connection = Connection(sys.argv[1])
publish(connection, 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
done = 1
try:
    while done < 100_000:
        publish(connection, "x" * 10_000)
        done += 1
except embedded.BrokerUnavailableError as error:
    assert "free space" in str(error), error
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    publish(connection, 1)
    print(done + 1, flush=True)
"""
    confirmed = int(run(code, broker))
    assert confirmed > 10
    with Connection(embedded.url_for(broker)) as connection:
        assert size(connection, WORK) == size(connection, MONITOR) == confirmed
