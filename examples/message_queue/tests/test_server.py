"""What clients may do to a server: words, slowness, garbage, size, numbers."""

from __future__ import annotations

import json
import random
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from message_queue import Consumer, Producer, ProtocolError, PublishError
from message_queue.control import ask_status
from message_queue.processes import ServerProcess

Connect = Callable[..., Any]


@pytest.mark.parametrize("by_byte", [False, True])
def test_a_client_written_by_hand(
    by_byte: bool, embedded: ServerProcess, topic: str, wire: Connect
) -> None:
    producer, consumer = wire(embedded.port, by_byte), wire(embedded.port, by_byte)
    producer.hello("PRODUCER", topic)
    consumer.hello("CONSUMER", topic, json.dumps({"topic": topic, "type": "CONSUMER"}))
    for message in (b"one", b"zwei\n drei ", b"UNKNOWN_WORD"):
        assert producer.ask(message) == b"ACKNOWLEDGED"
    assert consumer.ask(b"FETCH") == b"one"
    assert consumer.ask(b"HELLO") == b"UNKNOWN_WORD"
    assert consumer.ask(b"FETCH") == b"zwei\n drei "
    assert consumer.ask(b"FETCH") == b"UNKNOWN_WORD"
    for client in (producer, consumer):
        assert client.ask(b"SHUTDOWN") == b"CLOSE_CON"
        assert client.is_closed()


def test_all_in_one_write(embedded: ServerProcess, topic: str, wire: Connect) -> None:
    client = wire(embedded.port)
    frames = [client_frame(client, b"a"), client_frame(client, b"b")]
    hello = b'{"type": "PRODUCER", "topic": "%s"}' % topic.encode()
    client.send(hello + b"\n" + b"\n".join(frames) + client_frame(client, b"SHUTDOWN"))
    assert client.read_exactly(5) == b"ROGER"
    assert [client.hear() for _ in range(3)] == [b"ACKNOWLEDGED", b"ACKNOWLEDGED", b"CLOSE_CON"]


def client_frame(client: Any, body: bytes) -> bytes:
    """A frame, from the bytes that the client would send."""
    sent: list[bytes] = []
    send, client.send = client.send, sent.append
    client.say(body)
    client.send = send
    return b"".join(sent)


def test_a_client_that_says_all_and_hangs_up(
    embedded: ServerProcess, topic: str, wire: Connect
) -> None:
    client = wire(embedded.port)
    client.hello("PRODUCER", topic)
    client.say(b"last words")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.hear() == b"ACKNOWLEDGED"
    assert client.is_closed()
    with Consumer(topic, port=embedded.port) as consumer:
        assert consumer.fetch(30) == "last words"


def test_shutdown_while_a_fetch_waits(embedded: ServerProcess, topic: str, wire: Connect) -> None:
    client = wire(embedded.port)
    client.hello("CONSUMER", topic)
    client.say(b"FETCH")
    time.sleep(0.2)
    assert client.ask(b"SHUTDOWN") == b"CLOSE_CON"
    with Producer(topic, port=embedded.port) as producer:
        producer.publish("for another")
    with Consumer(topic, port=embedded.port) as consumer:
        assert consumer.fetch(30) == "for another"


def test_a_waiting_consumer_that_vanishes(
    embedded: ServerProcess, topic: str, wire: Connect
) -> None:
    for _ in range(3):
        client = wire(embedded.port)
        client.hello("CONSUMER", topic)
        client.say(b"FETCH")
        time.sleep(0.1)
        client.close()
    with Producer(topic, port=embedded.port) as producer:
        producer.publish("still here")
    with Consumer(topic, port=embedded.port) as consumer:
        assert consumer.fetch(30) == "still here"
        assert consumer.fetch(0.3) is None


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"begin with"),
        (b"{'type': 'OTHER', 'topic': 'a'}", b"PRODUCER"),
        (b"{'type': 'PRODUCER', 'topic': 'a b'}", b"topic 'a b'"),
        (b"{'type': 'PRODUCER', 'topic': '../#'}", b"topic"),
        (b"{" + b" " * 2000, b"1024"),
    ],
)
def test_a_bad_handshake(
    hello: bytes, reason: bytes, embedded: ServerProcess, wire: Connect
) -> None:
    client = wire(embedded.port)
    client.send(hello)
    answer = client.hear()
    assert answer.startswith(b"UNKNOWN_WORD") and reason in answer
    assert client.is_closed()


def test_no_handshake_in_time(start_server: Connect, wire: Connect) -> None:
    server = start_server({"MQ_HANDSHAKE_TIMEOUT": "0.3"})
    client = wire(server.port)
    client.send(b"{")
    assert client.hear().startswith(b"UNKNOWN_WORD")
    assert client.is_closed()


def test_fixed_topics(start_server: Connect, wire: Connect) -> None:
    server = start_server({"MQ_TOPICS": "mail, orders"})
    with Producer("orders", port=server.port) as producer:
        producer.publish("allowed")
    client = wire(server.port)
    client.send(b"{'type': 'CONSUMER', 'topic': 'others'}")
    assert b"'others'" in client.hear()
    assert client.is_closed()


def test_wrong_secrets(embedded: ServerProcess, topic: str) -> None:
    client = Producer(topic, port=embedded.port, head_secret="wrong", timeout=5)
    client.connect()
    with pytest.raises((ProtocolError, ConnectionError)):
        client.publish("never")
    client.abort()
    with Consumer(topic, port=embedded.port) as consumer:
        assert consumer.fetch(0.3) is None


def test_the_largest_message_and_one_byte_more(
    start_server: Connect, topic: str, wire: Connect
) -> None:
    server = start_server({"MQ_MAX_MESSAGE_SIZE": "1000"})
    with Producer(topic, port=server.port) as producer:
        producer.publish("ü" * 500)
    client = wire(server.port)
    client.hello("PRODUCER", topic)
    client.say(b"x" * 1001)
    assert client.hear().startswith(b"UNKNOWN_WORD: a message is larger than 1000 bytes")
    assert client.is_closed()
    with Consumer(topic, port=server.port) as consumer:
        assert consumer.fetch(30) == "ü" * 500
        assert consumer.fetch(0.3) is None


def test_an_endless_message(embedded: ServerProcess, topic: str, wire: Connect) -> None:
    client = wire(embedded.port)
    client.hello("PRODUCER", topic)
    frame = client_frame(client, b"")
    client.send(frame[:64])
    with pytest.raises((ConnectionError, TimeoutError)):
        client.socket.settimeout(10)
        for _ in range(10_000):
            client.send(b"x" * 65_536)


def test_a_message_that_is_no_unicode(embedded: ServerProcess, topic: str, wire: Connect) -> None:
    client = wire(embedded.port)
    client.hello("PRODUCER", topic)
    assert b"UTF-8 at byte 2" in client.ask(b"ab\xff")
    assert client.ask(b"good") == b"ACKNOWLEDGED"


def test_what_a_producer_cannot_send(embedded: ServerProcess, topic: str) -> None:
    with Producer(topic, port=embedded.port) as producer:
        with pytest.raises(ValueError, match="SHUTDOWN"):
            producer.publish("SHUTDOWN")
        with pytest.raises(ValueError, match="TAIL"):
            producer.publish(producer._dialogue.framing.tail.decode())
        with pytest.raises(UnicodeEncodeError):
            producer.publish("\ud800")
        producer.publish("good")
        assert issubclass(PublishError, Exception)


def test_any_text_comes_out_as_it_went_in(embedded: ServerProcess, topic: str) -> None:
    with Producer(topic, port=embedded.port) as producer:
        with Consumer(topic, port=embedded.port) as consumer:

            @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
            @given(st.text(st.characters(codec="utf-8"), max_size=200).filter("SHUTDOWN".__ne__))
            def check(message: str) -> None:
                producer.publish(message)
                assert consumer.fetch(30) == message

            check()


def test_fuzzed_clients_disturb_nobody(embedded: ServerProcess, topic: str, wire: Connect) -> None:
    dice = random.Random(7)
    with Producer(topic, port=embedded.port) as producer:
        with Consumer(topic, port=embedded.port) as consumer:
            for number in range(60):
                client = wire(embedded.port)
                if number % 2:
                    client.hello(dice.choice(["PRODUCER", "CONSUMER"]), f"{topic}-other")
                good = client_frame(client, dice.choice([b"FETCH", b"ACK", b"x"]))
                junk = bytearray(good * 2)
                for _ in range(dice.randrange(1, 6)):
                    junk[dice.randrange(len(junk))] = dice.randrange(256)
                try:
                    client.send(bytes(junk))
                except ConnectionError:
                    pass  # the server has answered the first half already
                if dice.random() < 0.7:
                    client.close()
                producer.publish(f"message {number}")
                assert consumer.fetch(30) == f"message {number}"


def test_a_client_that_does_not_read(embedded: ServerProcess, topic: str, wire: Connect) -> None:
    slow = wire(embedded.port)
    slow.hello("CONSUMER", topic)
    word = client_frame(slow, b"HELLO")
    slow.socket.settimeout(1)
    with pytest.raises(TimeoutError):
        for _ in range(2000):
            slow.send(word * 100)  # the server stops reading when its answers are not read
    with Producer(topic, port=embedded.port) as producer:
        producer.publish("served all the same")


def test_many_idle_connections(embedded: ServerProcess, topic: str) -> None:
    count = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 500)), hard))
    idle: list[socket.socket] = []
    try:
        hello = f"{{'type': 'CONSUMER', 'topic': '{topic}'}}".encode()
        for _ in range(count):
            idle.append(socket.create_connection(("127.0.0.1", embedded.port), 10))
            idle[-1].sendall(hello)
        for sock in idle:
            assert sock.recv(5, socket.MSG_WAITALL) == b"ROGER"
        with Producer(topic, port=embedded.port) as producer:
            with Consumer(topic, port=embedded.port) as consumer:
                for number in range(20):
                    producer.publish(str(number))
                    assert consumer.fetch(30) == str(number)
    finally:
        for sock in idle:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_room_for_another(
    start_server: Connect, topic: str, wire: Connect, wait_until: Connect
) -> None:
    server = start_server({"MQ_MAX_CONNECTIONS": "2"})

    def connections() -> int:
        return int(ask_status(server.port)["connections"])

    wait_until(lambda: connections() == 0, "the look whether it listens")
    first, second = wire(server.port), wire(server.port)
    first.hello("PRODUCER", topic)
    second.hello("PRODUCER", topic)
    third = wire(server.port)
    assert third.hear().startswith(b"UNKNOWN_WORD")
    assert third.is_closed()
    first.close()
    third.close()
    wait_until(lambda: connections() == 1, "the first client's end")
    wire(server.port).hello("PRODUCER", topic)
