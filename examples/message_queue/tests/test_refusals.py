"""RabbitMQ refuses one topic, and does not say which: its clients are told, and nobody else."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from kombu import Connection as BrokerConnection
from kombu import Exchange, Queue
from message_queue import Consumer, Producer, PublishError
from message_queue.application import make_app
from message_queue.processes import ServerProcess
from message_queue.publisher import Outgoing, Publisher
from message_queue.settings import Settings


@pytest.fixture
def taken(rabbitmq: dict[str, str], afterwards: ExitStack) -> Iterator[str]:
    """A topic whose queue another program reads alone."""
    name = f"t{uuid.uuid4().hex}"
    with BrokerConnection(rabbitmq["CELERY_BROKER_URL"]) as connection:
        channel = connection.channel()
        channel.queue_declare(f"mq.{name}", durable=True, auto_delete=False)
        tag = channel.basic_consume(f"mq.{name}", exclusive=True)
        yield name
        channel.basic_cancel(tag)
        channel.queue_delete(f"mq.{name}")


def test_a_topic_that_cannot_be_read(
    start_server: Callable[..., ServerProcess], rabbitmq: dict[str, str], topic: str, taken: str
) -> None:
    server = start_server(rabbitmq)
    with (
        ThreadPoolExecutor() as pool,
        Consumer(topic, port=server.port) as other,
        Producer(topic, port=server.port) as producer,
    ):
        waiting = pool.submit(other.fetch, 30)
        time.sleep(0.3)
        consumer = Consumer(taken, port=server.port)
        consumer.connect()
        with pytest.raises(ConnectionError):
            consumer.fetch(30)
        producer.publish("one")
        assert waiting.result() == "one"
    assert f"Topic {taken} cannot be read: Basic.consume: (403)" in server.log.read_text()


def test_a_message_that_is_refused(
    rabbitmq: dict[str, str], topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in rabbitmq.items():
        monkeypatch.setenv(name, value)
    app = make_app(Settings())
    nowhere = Exchange(f"nowhere-{topic}", type="topic", no_declare=True)
    app.conf.task_queues.append(Queue("mq.refused", nowhere, "mq.refused", no_declare=True))
    publisher = Publisher(app, lambda _: None)
    answers: list[Future[PublishError | None]] = []
    for number in range(7):
        answer: Future[PublishError | None] = Future()
        answers.append(answer)
        to = "refused" if number in (2, 5) else topic
        deadline = time.monotonic() + 30
        publisher.publish(Outgoing(str(uuid.uuid4()), to, "x", deadline, answer.set_result))
    publisher.start()
    try:
        found = [answer.result(20) for answer in answers]
    finally:
        publisher.stop(10)
        app.close()
    assert [error is not None for error in found] == [number in (2, 5) for number in range(7)]
    assert "the broker refuses it" in str(found[2])
    with BrokerConnection(rabbitmq["CELERY_BROKER_URL"]) as connection:
        declared = connection.channel().queue_declare(f"mq.{topic}", passive=True)
        assert declared.message_count >= 5, "some may be there twice"
