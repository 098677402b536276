"""The workarounds of Celery, with a Celery that is not as they know it: they say so, and go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency import prefork, solo
from celery.concurrency.asynpool import AsynPool
from celery.exceptions import Reject
from kombu.pidbox import Mailbox

from cadasta.workertoolbox.worker.fixes import control_queues, green_pools, heartbeats
from cadasta.workertoolbox.worker.fixes.known import Workaround
from cadasta.workertoolbox.worker.fixes.process_pools import has_event_loop
from cadasta.workertoolbox.worker.fixes.replacements import OnReplace, keep_replacements
from cadasta.workertoolbox.worker.fixes.retries import Retry, keep_retries
from cadasta.workertoolbox.worker.fixes.short_delays import lengthened
from cadasta.workertoolbox.worker.fixes.unpicklable_tasks import Apply
from cadasta.workertoolbox.worker.fixes.warm_stop import Flush

WORKAROUND = Workaround("nothing is well")


class Warnings:
    """What the workarounds have logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog = caplog

    def __call__(self) -> list[str]:
        return [
            record.getMessage()
            for record in self.caplog.records
            if record.levelno == logging.WARNING and record.name.endswith("fixes.known")
        ]


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Warnings]:
    """The warnings of a test, each with what differs and what that means for the user."""
    told = Warnings(caplog)
    yield told
    for warning in told():
        assert "is not as a workaround knows it: " in warning
        assert "Until a newer cadasta-workertoolbox knows it, " in warning


def the_only(warnings: Warnings) -> str:
    [warning] = warnings()
    return warning


def test_what_is_there_is_told_of_nowhere(warnings: Warnings) -> None:
    assert WORKAROUND.has(SimpleNamespace(one=1), "it", "one")
    assert WORKAROUND.takes(lambda one, two=2: None, "it", "one", "two")
    assert WORKAROUND.takes(lambda *args, **kwargs: None, "a wrapper", "one")
    assert WORKAROUND.find("json", "dumps")
    with WORKAROUND.stepping_aside():
        pass
    assert not warnings()


def test_what_is_missing_is_told_with_what_it_means(warnings: Warnings) -> None:
    assert not WORKAROUND.has(SimpleNamespace(one=1), "it", "one", "two", "three")
    assert "it has no two, three" in the_only(warnings)
    assert the_only(warnings).endswith("nothing is well")


@pytest.mark.parametrize("function", [lambda one, **others: None, 1])
def test_another_signature_is_told(warnings: Warnings, function: Any) -> None:
    assert not WORKAROUND.takes(function, "it", "two")
    assert "it takes no two" in the_only(warnings) or "it is no function" in the_only(warnings)


@pytest.mark.parametrize(("module", "name"), [("json", "no_such"), ("no_such_module", "name")])
def test_what_has_moved_is_told(warnings: Warnings, module: str, name: str) -> None:
    assert WORKAROUND.find(module, name) is None
    assert f"there is no {module}.{name}" in the_only(warnings)


def test_a_mistake_of_the_users_is_no_difference(warnings: Warnings) -> None:
    with pytest.raises(ValueError, match="theirs"), WORKAROUND.stepping_aside():
        raise ValueError("theirs")
    assert not warnings()


def test_control_queues_have_names_of_their_own(warnings: Warnings) -> None:
    mailbox = Mailbox("celery")
    control_queues.name_anew(mailbox)
    names = {mailbox.get_queue("host").name for _ in range(2)}
    assert len(names) == 2
    assert not warnings()


def test_control_queues_of_a_mailbox_that_differs(warnings: Warnings) -> None:
    control_queues.name_anew(SimpleNamespace(queue_for=str))
    assert "app.control.mailbox has no get_queue" in the_only(warnings)
    assert "RESOURCE_LOCKED" in the_only(warnings)


def test_control_queues_that_have_no_name(warnings: Warnings) -> None:
    queue = object()
    mailbox = SimpleNamespace(get_queue=lambda hostname: queue)
    control_queues.name_anew(mailbox)
    assert mailbox.get_queue("host") is queue
    assert "the queue of remote control has no name" in the_only(warnings)


def test_a_green_pool_that_cannot_be_asked(warnings: Warnings) -> None:
    pool_cls = type("TaskPool", (), {"__module__": "celery.concurrency.eventlet"})
    green_pools.tell_unpatched(pool_cls)  # eventlet is not installed
    assert "there is no eventlet.patcher.is_monkey_patched" in the_only(warnings)


def test_a_worker_that_tells_no_pool(warnings: Warnings) -> None:
    green_pools.TellUnpatched(SimpleNamespace())
    assert "the worker has no pool_cls" in the_only(warnings)


def test_heartbeats_of_a_solo_pool(warnings: Warnings) -> None:
    consumer = SimpleNamespace(pool=solo.TaskPool(), amqheartbeat=60)
    heartbeats.skip_heartbeats(consumer)
    assert consumer.amqheartbeat == 0
    assert not warnings()


def test_heartbeats_of_a_consumer_that_differs(warnings: Warnings) -> None:
    heartbeats.skip_heartbeats(SimpleNamespace(pool=solo.TaskPool(), heartbeat=60))
    assert "the consumer has no amqheartbeat" in the_only(warnings)
    assert "broker_heartbeat=0" in the_only(warnings)


class ChangedProcesses(AsynPool):
    """Celery's pool of processes, without what our workarounds read of it."""

    def __init__(self) -> None:
        """Start no process."""


@pytest.mark.parametrize(
    ("processes", "missing"),
    [(None, "the pool of processes has no _pool"), (ChangedProcesses(), "has no _fileno_to_outq")],
)
def test_a_pool_of_processes_that_differs(warnings: Warnings, processes: Any, missing: str) -> None:
    pool = prefork.TaskPool(1)
    pool._pool = processes
    assert not has_event_loop(pool, WORKAROUND)
    assert missing in the_only(warnings)


def test_other_pools_are_no_difference(warnings: Warnings) -> None:
    pool = prefork.TaskPool(1)
    pool._pool = object()  # billiard's, where there is no event loop
    assert not has_event_loop(pool, WORKAROUND)
    assert not has_event_loop(solo.TaskPool(), WORKAROUND)
    assert not warnings()


def test_a_task_whose_request_differs_fails_as_celery_lets_it(warnings: Warnings) -> None:
    class ChangedRequest:
        def on_error(self) -> None:
            """Called with the error."""

    def refuse(**_: Any) -> None:
        raise RecursionError

    with pytest.raises(RecursionError):
        Apply(refuse, pool=None)(error_callback=ChangedRequest().on_error)
    assert "the request has no id, on_failure" in the_only(warnings)


@pytest.mark.parametrize("keep", [keep_replacements, keep_retries])
def test_tasks_that_differ(warnings: Warnings, keep: Any) -> None:
    task = object()
    keep(SimpleNamespace(Task=object, tasks={"task": task}))
    assert "celery.Task has no " in the_only(warnings)


def test_a_replacement_comes_also_where_the_request_differs(warnings: Warnings) -> None:
    def on_replace(sig: Any) -> Any:
        return sig

    task = SimpleNamespace(request=SimpleNamespace(id="id", is_eager=False))
    sig = {"task": "name", "options": {"task_id": "id"}, "kwargs": {}}
    assert OnReplace(task, on_replace)(sig) is sig
    assert "has no attribute 'headers'" in the_only(warnings)


def test_a_refused_retry_of_another_kind_is_celerys(warnings: Warnings) -> None:
    class ChangedReject(Reject):
        def __init__(self) -> None:
            """Without a reason."""

    def retry() -> None:
        raise ChangedReject

    with pytest.raises(ChangedReject):
        Retry(SimpleNamespace(acks_late=True), retry)()
    assert "celery.exceptions.Reject has no reason, requeue" in the_only(warnings)


def test_delays_under_other_names_are_left_alone(warnings: Warnings) -> None:
    def send_task(name: str, delay: float = 0) -> float:
        return delay

    assert lengthened(None, send_task) is send_task
    assert "app.send_task takes no countdown, eta" in the_only(warnings)


def test_a_short_delay_is_a_second(warnings: Warnings) -> None:
    def send_task(name: str, countdown: float | None = None, eta: Any = None) -> float | None:
        return countdown

    assert lengthened(None, send_task)("name", countdown=0.2) == 1
    assert not warnings()


def test_a_pool_that_differs_is_flushed_all_the_same(warnings: Warnings) -> None:
    flushed = []
    Flush(lambda: flushed.append(True), SimpleNamespace(_pool=object()), hub=None)()
    assert flushed
    assert "has no attribute '_cache'" in the_only(warnings)
