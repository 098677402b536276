"""For the tests of an application: a ready-made test case of its configuration, pytest fixtures.

The test case, for unittest and pytest alike, in a test module::

    from .functional import build_functional_tests
    from exporter import app

    TestConfiguration = build_functional_tests(app)

The fixtures ``embedded_app``, ``start_worker``, ``start_monitor`` come with this line in a
``conftest.py``, and the extra ``test``::

    pytest_plugins = ["cadasta.workertoolbox.testing_fixtures"]
"""

from __future__ import annotations

import time
import unittest
from collections.abc import Iterable
from typing import Any

from ..brokers.kinds import broker_of_connection
from ..checks.settings import check_settings
from ..errors import ToolboxError
from ..ledger.ledger import Ledger
from ..ledger.model import Task
from ..publishing.probe import PROBE, reached
from ..routing.router import router_of
from ..worker.setup import setup_app

__all__ = ["build_functional_tests", "wait_for"]


def wait_for(
    ledger: Ledger, task_id: str, state: str | Iterable[str] = "SUCCESS", timeout: float = 30.0
) -> Task:
    """Return the task once the ledger has it in that state, or in one of these.

    Args:
        ledger: as ``Ledger.from_app(app)`` gives it.
        task_id: the task's id.
        state: such as ``"SUCCESS"``, or several.
        timeout: seconds.

    Raises:
        AssertionError: it took longer, or the task ended in another state; with what is known.
    """
    wanted = {state} if isinstance(state, str) else set(state)
    give_up = time.monotonic() + timeout
    while True:
        found = ledger.get(task_id)
        if found is not None and found.state in wanted:
            return found
        ended = found is not None and found.is_final
        if ended or time.monotonic() > give_up:
            known = "is not in the ledger"
            if found is not None:
                known = (
                    f"({found.name}) is {found.state}: {found.result!r}\n{found.traceback or ''}"
                )
            how = "ended" if ended else f"waited {timeout:g} s"
            raise AssertionError(f"{how}; not {sorted(wanted)}: task {task_id} {known}".rstrip())
        time.sleep(0.05)


def build_functional_tests(app: Any, is_worker: bool = True) -> type[unittest.TestCase]:
    """Return a test case that proves an app's configuration on its real broker.

    No task is run: it publishes probes, tasks that have expired, where no worker consumes.

    Args:
        app: a Celery app that is configured by ``Config``.
        is_worker: False for an app that only publishes: what workers need is left out.
    """

    class FunctionalTests(unittest.TestCase):
        """The app against the architecture."""

        @classmethod
        def setUpClass(cls) -> None:
            setup_app(app)

        def test_default_queue(self) -> None:
            self.assertEqual(app.conf.task_default_queue, "celery")
            self.assertIn(app.conf.task_default_queue, router_of(app).queues)

        def test_monitor_queue(self) -> None:
            monitor = router_of(app).monitor
            self.assertEqual(monitor.name, app.conf.PLATFORM_QUEUE_NAME)
            self.assertEqual(monitor.routing_key, "#")
            self.assertNotIn(monitor.name, app.amqp.queues, "a worker would run each task twice")

        def test_exchange(self) -> None:
            self.assertEqual(app.conf.task_default_exchange_type, "topic")
            for queue in [*router_of(app).queues.values(), router_of(app).monitor]:
                self.assertEqual(queue.exchange.type, "topic", queue.name)
                self.assertEqual(queue.exchange.name, app.conf.task_default_exchange, queue.name)

        def test_queues_have_what_is_published_to_them(self) -> None:
            names = [name for name in app.conf.QUEUES if name != app.conf.PLATFORM_QUEUE_NAME]
            for name in names:
                with self.subTest(queue=name):
                    routed = app.amqp.router.route({}, f"{name}.task")
                    self.assertEqual(routed["queue"].name, name)
                    self.assertEqual(routed["routing_key"], name)
                    self.assertEqual(
                        [queue.name for queue in routed["declare"]],
                        [name, app.conf.PLATFORM_QUEUE_NAME],
                    )

        def test_a_message_reaches_its_queue_and_the_monitor(self) -> None:
            router = router_of(app)
            queues = [*router.queues.values(), router.monitor]
            with app.connection_for_write() as connection:
                broker = broker_of_connection(connection)
                for queue in router.queues.values():
                    with self.subTest(queue=queue.name):
                        busy = [one.name for one in queues if broker.consumers(connection, one)]
                        if busy:
                            self.skipTest(f"stop the workers and monitors of {busy} first")
                        came = reached(app, connection, queue, queues)
                        self.assertEqual(came, {queue.name, router.monitor.name})

        def test_an_unknown_queue_is_refused(self) -> None:
            with self.assertRaises((ToolboxError, KeyError, ValueError)):
                app.send_task(PROBE, queue="no.such.queue", ignore_result=True)

        def test_settings(self) -> None:
            wrong = [one for one in check_settings(app) if one.level == "error"]
            self.assertEqual(wrong, [], "as `celery check` tells")

        @unittest.skipUnless(is_worker, "the app runs no tasks")
        def test_chords_are_limited(self) -> None:
            limit = app.tasks["celery.chord_unlock"].max_retries
            self.assertEqual(limit, app.conf.CHORD_UNLOCK_MAX_RETRIES)

        @unittest.skipUnless(is_worker, "the app runs no tasks")
        def test_it_is_set_up(self) -> None:
            self.assertTrue(app.is_set_up)

    return FunctionalTests
