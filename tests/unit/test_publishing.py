"""What reaches the monitor queue, on kombu's in-memory broker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast
from kombu.exceptions import EncodeError
from kombu.transport.memory import Transport

from cadasta.workertoolbox import Config
from cadasta.workertoolbox.messages.decoding import TaskRecord, decode


class Box:
    """An app on a broker in this process's memory."""

    def __init__(self, name: str, config: Any) -> None:
        self.app = Celery(name, set_as_current=False)
        self.app.config_from_object(config)

        @self.app.task(name="export.add", shared=False)
        def add(x: int, y: int) -> int:
            return x + y

        self.add = add

    def messages(self, queue: str = "platform.fifo") -> list[Any]:
        """Take everything from a queue."""
        found: list[Any] = []
        with self.app.connection_for_read() as connection:
            channel = connection.default_channel
            while True:
                message = channel.basic_get(queue, no_ack=True) if has(channel, queue) else None
                if message is None:
                    return found
                found.append(message)

    def records(self) -> list[TaskRecord]:
        return [
            decode(
                message.body,
                content_type=message.content_type,
                headers=message.headers,
                properties=message.properties,
                exchange=message.delivery_info.get("exchange"),
                routing_key=message.delivery_info.get("routing_key"),
            )
            for message in self.messages()
        ]


def has(channel: Any, queue: str) -> bool:
    return queue in channel.queues


@pytest.fixture
def url() -> Iterator[str]:
    """An in-memory broker of this test: kombu pools connections by URL."""
    yield f"memory://localhost/{uuid.uuid4()}"
    for queue in Transport.Channel.queues.values():
        with queue.mutex:
            queue.queue.clear()


@pytest.fixture
def box(url: str) -> Iterator[Box]:
    config = Config(queues=["export"], broker_url=url, result_backend="disabled://")
    found = Box("box", config)
    yield found
    found.app.close()


def test_each_task_has_a_copy_with_its_time(box: Box) -> None:
    before = datetime.now(timezone.utc)
    result = box.add.delay(1, 2)
    [record] = box.records()
    assert (record.task_id, record.name, record.queue) == (result.id, "export.add", "export")
    assert record.args == "[1,2]"
    assert record.published_at is not None
    assert before <= record.published_at <= datetime.now(timezone.utc)
    assert len(box.messages("export")) == 1


def test_the_copy_does_not_expire(box: Box) -> None:
    box.add.apply_async((1, 2), expires=30)
    [message] = box.messages()
    assert "expiration" not in message.properties
    assert message.headers["expires"] is not None


def test_what_amqp_would_drop_travels_in_a_header(box: Box) -> None:
    box.add.apply_async((1, 2), is_result=True, priority=3, headers={"creator_id": 5})
    [record] = box.records()
    assert record.properties == {"is_result": True}
    assert record.headers == {"creator_id": 5}
    assert record.priority == 3


class Weird:
    def __str__(self) -> str:
        raise ValueError("no text")


def test_values_that_no_broker_carries_become_what_each_one_does(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    deep: dict[str, Any] = {}
    deep["deep"] = deep
    values = {"path": Path("/x"), "weird": Weird(), "deep": deep, "own": {(1, 2): Shape()}}
    expected = {
        "path": "/x",
        "weird": "<Weird: ValueError>",
        "deep": "<dict: RecursionError>",
        "own": {"[1, 2]": {"side": 3}},
    }
    headers: dict[Any, Any] = {**values, 5: "five", "k" * 300: 1}
    box.add.apply_async((1, 2), headers=headers, **values)
    [record] = box.records()
    assert record.properties == expected
    assert record.headers == {**expected, "5": "five", "k" * 255: 1}
    assert "ValueError" in caplog.text and "300 characters" in caplog.text


class Shape:
    def __json__(self) -> dict[str, int]:
        return {"side": 3}


@pytest.mark.parametrize(
    "options",
    [
        {"queue": Queue("foreign", Exchange("own"), routing_key="foreign")},
        {"queue": Queue("foreign", Exchange("own-topic", type="topic"), routing_key="foreign")},
        {"queue": Queue("foreign")},
    ],
    ids=["direct", "topic", "default exchange"],
)
def test_a_stray_is_copied_once(box: Box, options: dict[str, Any]) -> None:
    result = box.add.apply_async((1, 2), is_result=True, expires=60, **options)
    [record] = box.records()
    assert (record.task_id, record.queue, record.args) == (result.id, "foreign", "[1,2]")
    assert record.properties == {"is_result": True}
    [original] = box.messages("foreign")
    assert original.headers["id"] == result.id
    assert "toolbox_queue" not in original.headers


def test_a_broadcast_is_copied(box: Box) -> None:
    box.add.apply_async((1, 2), queue=Broadcast("everyone"))
    assert [record.queue for record in box.records()] == ["everyone"]


def test_arguments_that_json_does_not_take_are_recorded_by_their_repr(box: Box) -> None:
    box.app.conf.accept_content = ["json", "pickle"]
    box.add.apply_async(
        ({1, 2}.__class__, 2),
        serializer="pickle",
        queue=Queue("foreign", Exchange("own"), routing_key="foreign"),
    )
    [record] = box.records()
    assert record.args is None
    assert record.args_repr == "(<class 'set'>, 2)"


def test_a_failed_publish_leaves_no_copy_behind(box: Box) -> None:
    foreign = Queue("foreign", Exchange("own"), routing_key="foreign")
    with pytest.raises(EncodeError):
        box.add.apply_async((object(), 2), queue=foreign)
    box.add.delay(1, 2)
    assert [record.args for record in box.records()] == ["[1,2]"]


def test_another_app_in_the_process_is_left_alone(box: Box, url: str) -> None:
    other = Box("other", {"broker_url": url, "result_backend": "disabled://"})
    other.add.apply_async((1, 2), expires=30)
    [message] = other.messages("celery")
    assert not [name for name in message.headers if name.startswith("toolbox")]
    assert "expiration" in message.properties
    assert box.messages() == []
    other.app.close()


def test_two_configs_in_a_process_keep_to_their_own_queues(url: str) -> None:
    one, two = (
        Box(
            name,
            Config(
                queues=["export"],
                broker_url=url,
                PLATFORM_QUEUE_NAME=f"monitor.{name}",
                task_default_exchange=f"exchange.{name}",
                result_backend="disabled://",
            ),
        )
        for name in ("one", "two")
    )
    one.add.delay(1, 1)
    two.add.apply_async((2, 2), queue=Queue("foreign", Exchange("own"), routing_key="foreign"))
    assert len(one.messages("monitor.one")) == 1
    assert len(two.messages("monitor.two")) == 1


def test_a_message_group_of_its_own_on_sqs_only(box: Box) -> None:
    box.app.conf.task_routes.message_groups = True
    first, second = box.add.delay(1, 2), box.add.apply_async((3, 4), MessageGroupId="mine")
    groups = [message.properties["MessageGroupId"] for message in box.messages()]
    assert groups == [first.id, "mine"]
    assert second.id not in groups
