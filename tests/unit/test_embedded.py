"""The embedded broker through kombu's own interface, in one process and with forks."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.exceptions import ChannelError, OperationalError
from kombu.transport import TRANSPORT_ALIASES, get_transport_cls

from cadasta.workertoolbox import embedded
from cadasta.workertoolbox.embedded_file import File
from cadasta.workertoolbox.errors import BrokerError
from tests.services.process import wait_until

TASKS = Exchange("task_exchange", type="topic")
WORK = Queue("data.sync", TASKS, routing_key="data.sync")
MONITOR = Queue("platform.fifo", TASKS, routing_key="#")
NEWS = Exchange("news", type="fanout")

Connect = Callable[..., Any]


@pytest.fixture
def broker(tmp_path: Path) -> Path:
    return tmp_path / "broker.sqlite3"


@pytest.fixture
def connect(broker: Path) -> Iterator[Connect]:
    """Make connections to the broker with these transport options; they are closed at the end."""
    embedded.register()
    connections: list[Any] = []

    def make(**options: Any) -> Any:
        connections.append(Connection(embedded.url_for(broker), transport_options=options))
        return connections[-1]

    yield make
    for connection in connections:
        connection.release()


def publish(connection: Any, *bodies: Any, **options: Any) -> None:
    options = {"exchange": TASKS, "routing_key": "data.sync", "declare": [WORK, MONITOR], **options}
    for body in bodies:
        Producer(connection).publish(body, **options)


def get(connection: Any, queue: Queue = WORK) -> Any:
    return queue(connection.default_channel).get(accept=["json", "pickle", "text/plain"])


def bodies(connection: Any, queue: Queue = WORK) -> list[Any]:
    """Take and acknowledge all that waits in a queue."""
    found = []
    while message := get(connection, queue):
        found.append(message.payload)
        message.ack()
    return found


def size(connection: Any, queue: Queue = WORK) -> int:
    return int(queue(connection.default_channel).queue_declare(passive=True).message_count)


class Received:
    """A consumer that keeps what it is given."""

    def __init__(self, connection: Any, *queues: Queue, prefetch: int = 0, **options: Any) -> None:
        self.connection = connection
        self.messages: list[Any] = []
        self.consumer = Consumer(
            connection.channel(),
            list(queues) or [WORK],
            on_message=self.messages.append,
            prefetch_count=prefetch or None,
            **options,
        )
        self.consumer.consume()

    def drain(self, timeout: float = 0) -> list[Any]:
        """Return the payloads of all messages so far, once no more comes for so long."""
        while True:
            try:
                self.connection.drain_events(timeout=timeout)
            except TimeoutError:
                return [message.payload for message in self.messages]


def run(code: str, broker: Path) -> str:
    """Run some Python, with the broker's URL as its argument; return what it prints."""
    command = [sys.executable, "-c", code, embedded.url_for(broker)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


# -- names


def test_register_may_be_called_twice_and_names_the_transport() -> None:
    embedded.register()
    embedded.register()
    assert TRANSPORT_ALIASES["embedded"] == "cadasta.workertoolbox.embedded:Transport"
    assert get_transport_cls("embedded") is embedded.Transport


def test_url_keeps_every_character_of_the_path(tmp_path: Path) -> None:
    path = tmp_path / "a folder;+#?%40é" / "broker.sqlite3"
    url = embedded.url_for(path)
    assert embedded.path_of(url) == str(path)
    with Connection(url) as connection:
        connection.connect()
        assert connection.as_uri() == url
        assert connection.clone().as_uri() == url
    assert path.exists()


def test_three_slashes_are_relative_four_absolute(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert embedded.path_of("embedded:///sub/broker.db") == str(tmp_path / "sub" / "broker.db")
    assert embedded.path_of("embedded:////srv/broker.db") == "/srv/broker.db"


@pytest.mark.parametrize("url", ["embedded://", "embedded:///", "embedded://home/broker.db"])
def test_url_without_a_file_is_an_error_that_tells_how_to_write_it(url: str) -> None:
    with pytest.raises(BrokerError, match="four slashes"):
        Connection(url).connect()


# -- routing


def test_a_topic_publish_reaches_both_queues(connect: Connect) -> None:
    publish(connect(), {"n": 1}, {"n": 2})
    assert bodies(connect(), WORK) == bodies(connect(), MONITOR) == [{"n": 1}, {"n": 2}]


def test_topology_outlives_the_process_that_declared_it(connect: Connect, broker: Path) -> None:
    code = """
import sys
from kombu import Connection
from tests.unit.test_embedded import *
embedded.register()
with Connection(sys.argv[1]) as connection:
    WORK(connection.default_channel).declare()
    MONITOR(connection.default_channel).declare()
"""
    run(code, broker)
    publish(connect(), "hello", declare=[])
    assert bodies(connect(), WORK) == bodies(connect(), MONITOR) == ["hello"]


def test_a_new_and_an_undone_binding_are_noticed_by_other_connections(connect: Connect) -> None:
    first, second = connect(), connect()
    late = Queue("late", TASKS, routing_key="data.*")
    publish(first, 1)
    late(second.default_channel).declare()
    publish(first, 2, declare=[])
    late(second.default_channel).unbind_from(TASKS, "data.*")
    publish(first, 3, declare=[])
    assert bodies(second, late) == [2]
    assert bodies(second) == [1, 2, 3]


def test_what_no_queue_is_bound_for_is_dropped_but_an_unknown_exchange_is_an_error(
    connect: Connect,
) -> None:
    connection = connect()
    Queue("other", TASKS, routing_key="other")(connection.default_channel).declare()
    publish(connection, 1, declare=[])
    with pytest.raises(ChannelError, match="no exchange 'nowhere'.*declare it first"):
        publish(connection, 1, exchange="nowhere", declare=[])


def test_direct_default_and_fanout_exchanges(connect: Connect) -> None:
    connection = connect()
    direct = Queue("exact", Exchange("direct", type="direct"), routing_key="a.b")
    listeners = [Queue(f"listener{n}", NEWS) for n in range(3)]
    publish(connection, 1, exchange=direct.exchange, routing_key="a.b", declare=[direct])
    publish(connection, 2, exchange=direct.exchange, routing_key="a.c", declare=[])
    publish(connection, 3, exchange="", routing_key="exact", declare=[])
    publish(connection, 4, exchange=NEWS, routing_key="", declare=listeners)
    assert bodies(connection, direct) == [1, 3]
    assert [bodies(connection, queue) for queue in listeners] == [[4], [4], [4]]


def test_an_exchange_keeps_its_type(connect: Connect) -> None:
    channel = connect().default_channel
    TASKS(channel).declare()
    with pytest.raises(ChannelError, match="of type topic, not direct"):
        Exchange("task_exchange", type="direct")(channel).declare()
    with pytest.raises(ChannelError, match="no type 'headers'"):
        Exchange("other", type="headers")(channel).declare()


def test_bindings_can_be_listed(connect: Connect) -> None:
    connection = connect()
    publish(connection, 1)
    assert {tuple(sorted(b.items())) for b in connection.manager.get_bindings()} == {
        (("destination", q.name), ("routing_key", q.routing_key), ("source", "task_exchange"))
        for q in (WORK, MONITOR)
    }


# -- order, redelivery, acknowledgement


def test_first_in_first_out_and_higher_priority_first(connect: Connect) -> None:
    connection = connect()
    for number, priority in enumerate([None, 3, 9, 3, 0, 12]):
        publish(connection, number, priority=priority)
    assert bodies(connection) == [2, 5, 1, 3, 0, 4]


def test_unacknowledged_messages_return_at_close_to_their_place_in_their_queue_alone(
    connect: Connect,
) -> None:
    connection = connect()
    publish(connection, *range(6))
    taker = Received(connect(), WORK, prefetch=3)
    assert taker.drain() == [0, 1, 2]
    taker.messages[1].ack()
    taker.connection.release()
    assert (size(connection, WORK), size(connection, MONITOR)) == (5, 6)
    after = [get(connection) for _ in range(5)]
    assert [m.payload for m in after] == [0, 2, 3, 4, 5]
    assert [m.delivery_info["redelivered"] for m in after] == [True, True, False, False, False]


def test_an_acknowledgement_ends_its_own_copy_only(connect: Connect) -> None:
    connection = connect()
    publish(connection, 1)
    get(connection, WORK).ack()
    assert (size(connection, WORK), size(connection, MONITOR)) == (0, 1)


def test_acknowledging_many_takes_those_up_to_the_tag_of_the_same_channel(
    connect: Connect,
) -> None:
    connection = connect()
    publish(connection, *range(10))
    consumer = Received(connect(), MONITOR, prefetch=8)
    other = Received(consumer.connection, WORK, prefetch=4)
    consumer.drain()
    assert (len(consumer.messages), len(other.messages)) == (8, 4)
    consumer.messages[5].ack(multiple=True)
    consumer.connection.release()
    assert bodies(connection, MONITOR) == [6, 7, 8, 9]
    assert bodies(connection, WORK) == list(range(10))


def test_acknowledging_many_spares_what_was_not_handed_out(connect: Connect) -> None:
    connection = connect()
    publish(connection, *range(5))
    consumer = Received(connect(), WORK, prefetch=5)
    consumer.connection.drain_events(timeout=1)  # one of the five that it took
    consumer.consumer.channel.basic_ack(99, multiple=True)
    consumer.connection.release()
    assert bodies(connection) == [1, 2, 3, 4]


def test_rejecting_deletes_or_puts_back(connect: Connect) -> None:
    connection = connect()
    publish(connection, 1, 2, 3)
    get(connection).reject()
    message = get(connection)
    message.requeue()
    again = get(connection)
    assert (again.payload, again.delivery_info["redelivered"]) == (2, True)
    assert again.delivery_tag != message.delivery_tag
    assert (size(connection, WORK), size(connection, MONITOR)) == (1, 3)


def test_the_prefetch_window_limits_what_a_consumer_holds(connect: Connect) -> None:
    connection = connect()
    publish(connection, *range(10))
    consumer = Received(connect(), prefetch=4)
    assert consumer.drain() == [0, 1, 2, 3]
    assert size(connection) == 6
    consumer.messages[0].ack()
    consumer.messages[1].ack()
    assert consumer.drain() == [0, 1, 2, 3, 4, 5]


def test_without_a_window_no_more_is_taken_than_is_handed_out(connect: Connect) -> None:
    connection = connect()
    publish(connection, *range(10))
    Received(connection).connection.drain_events(timeout=1)
    assert size(connection) == 9


def test_cancelling_gives_back_what_was_not_handed_out_unmarked(connect: Connect) -> None:
    connection = connect()
    publish(connection, *range(5))
    consumer = Received(connect(), prefetch=5)
    consumer.connection.drain_events(timeout=1)
    consumer.consumer.cancel()
    message = get(connection)
    assert (message.payload, message.delivery_info["redelivered"]) == (1, False)
    assert size(connection) == 3


def test_a_consumer_without_acknowledgement_deletes_what_it_is_given(connect: Connect) -> None:
    connection = connect()
    publish(connection, 1, 2, 3)
    consumer = Received(connect(), no_ack=True)
    consumer.connection.drain_events(timeout=1)
    consumer.connection.release()
    assert bodies(connection) == [2, 3]


def test_no_queue_starves_another(connect: Connect) -> None:
    connection = connect()
    busy, quiet = Queue("busy", TASKS, routing_key="busy"), Queue("quiet", TASKS, routing_key="q")
    publish(connection, *["busy"] * 50, routing_key="busy", declare=[busy])
    publish(connection, "quiet", routing_key="q", declare=[quiet])
    consumer = Received(connect(), busy, quiet, prefetch=1)
    for _ in range(4):
        consumer.connection.drain_events(timeout=1)
        consumer.messages[-1].ack()
    assert "quiet" in [message.payload for message in consumer.messages]


# -- visibility timeout


def test_an_overdue_message_is_delivered_again_though_its_consumer_lives(connect: Connect) -> None:
    publish(connect(), 1, 2)
    slow = Received(connect(visibility_timeout=1), prefetch=1)
    slow.drain()
    start = time.monotonic()
    other = Received(connect(), prefetch=5)
    assert other.drain() == [2]
    other.connection.drain_events(timeout=10)
    assert 0.9 <= time.monotonic() - start < 3
    assert [m.payload for m in other.messages] == [2, 1]
    assert other.messages[1].delivery_info["redelivered"] is True
    slow.messages[0].ack()  # too late: the other one has it now
    other.connection.release()
    assert bodies(connect()) == [1, 2]


def test_a_late_acknowledgement_counts_while_nobody_else_has_the_message(connect: Connect) -> None:
    publish(connect(), 1)
    slow = Received(connect(visibility_timeout=0.2))
    slow.drain()
    watcher = Received(connect(), MONITOR)
    wait_until(lambda: (watcher.drain(0.1), size(watcher.connection) == 1)[1], 10, "the timeout")
    slow.messages[0].ack()
    assert size(watcher.connection) == 0


# -- bodies


@pytest.mark.parametrize("body", [b"\x00\xff\xfe", b"", b"plain", bytes(range(256)) * 4000])
def test_binary_bodies_survive_byte_for_byte(connect: Connect, body: bytes) -> None:
    publish(connect(), body, content_type="application/data", content_encoding="binary")
    message = get(connect())
    assert message.body == body
    assert message.content_encoding == "binary"


def test_a_json_body_is_stored_as_its_text(connect: Connect, broker: Path) -> None:
    publish(connect(), {"größe": "ß\x00\u2603"}, headers={"id": "7"})
    message = get(connect())
    assert message.payload == {"größe": "ß\x00\u2603"}
    assert message.headers == {"id": "7"}
    database = sqlite3.connect(broker)
    (kind, text), _ = database.execute("SELECT typeof(body), body FROM message").fetchall()
    database.close()
    assert kind == "text" and text.startswith('{"gr')


def test_compressed_and_pickled_bodies_survive(connect: Connect) -> None:
    publish(connect(), {"a": [1] * 1000}, compression="gzip")
    publish(connect(), {"a", "b"}, serializer="pickle")
    connection = connect()
    assert get(connection).payload == {"a": [1] * 1000}
    assert get(connection).payload == {"a", "b"}


# -- queues


def test_size_purge_delete_and_passive_declare(connect: Connect) -> None:
    connection = connect()
    with pytest.raises(ChannelError, match="no queue 'data.sync'"):
        size(connection)
    with pytest.raises(ChannelError, match="no exchange"):
        TASKS(connection.default_channel).declare(passive=True)
    publish(connection, 1, 2, 3)
    get(connection)
    work = WORK(connection.default_channel)
    assert (size(connection), work.purge(), size(connection)) == (2, 2, 0)
    work.delete(if_empty=True)
    with pytest.raises(ChannelError, match="no queue 'data.sync'"):
        size(connection)
    publish(connection, 4, declare=[])
    MONITOR(connection.default_channel).delete(if_empty=True)
    assert size(connection, MONITOR) == 4
    TASKS(connection.default_channel).delete()
    with pytest.raises(ChannelError, match="no exchange"):
        publish(connection, 5, declare=[])


def test_simple_queue(connect: Connect) -> None:
    connection = connect()
    queue = connection.SimpleQueue("simple")
    queue.put({"n": 1})
    queue.put({"n": 2})
    message = queue.get(timeout=5)
    assert (message.payload, queue.qsize()) == ({"n": 1}, 1)
    message.ack()
    assert queue.clear() == 1
    with pytest.raises(queue.Empty):
        queue.get(timeout=0.01)
    queue.close()


def test_a_queue_that_deletes_itself_goes_with_its_last_consumer(connect: Connect) -> None:
    queue = Queue("events", NEWS, auto_delete=True)
    first, second, publisher = Received(connect(), queue), Received(connect(), queue), connect()
    first.connection.release()
    publish(publisher, 1, exchange=NEWS, declare=[])
    assert second.drain() == [1]
    second.consumer.cancel()
    with pytest.raises(ChannelError, match="no queue 'events'"):
        size(publisher, queue)
    publish(publisher, 2, exchange=NEWS, declare=[])  # to nobody


def test_a_temporary_queue_that_nobody_consumed_yet_is_kept(connect: Connect) -> None:
    queue = Queue("events", NEWS, auto_delete=True)
    first = connect()
    publish(first, 1, exchange=NEWS, declare=[queue])
    first.release()
    assert bodies(connect(), queue) == [1]


# -- waking up


def test_an_idle_consumer_gets_a_message_at_once_and_takes_no_cpu(connect: Connect) -> None:
    publisher, consumer = connect(), Received(connect())
    publish(publisher, 0)
    consumer.drain()
    delays: list[float] = []

    def receive() -> None:
        while len(delays) < 12:
            consumer.connection.drain_events(timeout=10)
            delays.append(time.monotonic() - consumer.messages[-1].payload)

    thread = threading.Thread(target=receive)
    thread.start()
    for _ in range(12):
        time.sleep(0.1)  # so that it idles
        publish(publisher, time.monotonic())
    thread.join(10)
    assert sorted(delays)[6] < 0.05

    before = time.process_time()
    with pytest.raises(TimeoutError):
        consumer.connection.drain_events(timeout=2)
    assert time.process_time() - before < 0.02


def test_an_acknowledgement_from_another_thread_opens_the_window_at_once(connect: Connect) -> None:
    publish(connect(), 1, 2)
    consumer = Received(connect(), prefetch=1)
    consumer.connection.drain_events(timeout=5)
    timer = threading.Timer(0.2, consumer.messages[0].ack)
    timer.start()
    start = time.monotonic()
    consumer.connection.drain_events(timeout=5)
    assert 0.1 < time.monotonic() - start < 0.6
    timer.join()


# -- threads, forks, deaths


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
from tests.unit.test_embedded import *
embedded.register()
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
from tests.unit.test_embedded import *
embedded.register()
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
from tests.unit.test_embedded import *
embedded.register()
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
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as taker:
        assert taker.stdout is not None and taker.stdout.readline() == "3\n"
        other = Received(connect())
        taker.send_signal(signal.SIGSTOP)
        assert other.drain(2.5) == []
        taker.kill()
        start = time.monotonic()
        other.connection.drain_events(timeout=10)
        assert time.monotonic() - start < 3
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


# -- the file


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
    File(str(broker)).rows("SELECT 1")
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
    embedded.register()
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
from tests.unit.test_embedded import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
embedded.register()
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
