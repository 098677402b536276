"""The embedded broker through kombu's own interface: names, routing, bodies, queues."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue
from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, get_transport_cls

from cadasta.workertoolbox.brokers import transports
from cadasta.workertoolbox.brokers.embedded import transport as embedded
from cadasta.workertoolbox.errors import BrokerError
from tests.embedded_broker import (
    MONITOR,
    NEWS,
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


@pytest.fixture(autouse=True)
def registered() -> None:
    transports.register()


def test_register_may_be_called_twice_and_names_the_transport() -> None:
    transports.register()
    transports.register()
    assert (
        TRANSPORT_ALIASES["embedded"]
        == "cadasta.workertoolbox.brokers.embedded.transport:Transport"
    )
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


def test_a_topic_publish_reaches_both_queues(connect: Connect) -> None:
    publish(connect(), {"n": 1}, {"n": 2})
    assert bodies(connect(), WORK) == bodies(connect(), MONITOR) == [{"n": 1}, {"n": 2}]


def test_topology_outlives_the_process_that_declared_it(connect: Connect, broker: Path) -> None:
    code = """
import sys
from kombu import Connection
from tests.embedded_broker import *
transports.register()
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
