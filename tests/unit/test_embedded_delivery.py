"""The embedded broker: order, acknowledgement, redelivery, waking up."""

from __future__ import annotations

import threading
import time

import pytest
from kombu import Queue

from tests.embedded_broker import (
    MONITOR,
    TASKS,
    WORK,
    Connect,
    Received,
    bodies,
    get,
    publish,
    size,
)
from tests.services.process import wait_until


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


def test_an_overdue_message_is_delivered_again_though_its_consumer_lives(connect: Connect) -> None:
    publish(connect(), 1, 2)
    slow = Received(connect(visibility_timeout=1), prefetch=1)
    slow.drain()
    start = time.monotonic()
    other = Received(connect(), prefetch=5)
    assert other.drain() == [2]
    other.connection.drain_events(timeout=10)
    assert 0.9 <= time.monotonic() - start < 5
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
    assert 0.1 < time.monotonic() - start < 0.9
    timer.join()
