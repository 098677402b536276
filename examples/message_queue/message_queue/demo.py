"""The demonstration: all of it in one command, with a server that is killed in the middle."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
import uuid
from pathlib import Path

import click
from celery import Celery

from cadasta.workertoolbox import Ledger

from .application import make_app, queue_of
from .client import Consumer, Producer
from .errors import MessageQueueError
from .processes import MonitorProcess, ServerProcess
from .settings import Settings
from .topics import queue_name

#: Seconds after which the demonstration has failed.
PATIENCE = 120.0
#: Seconds between two tries to reach a server that is not there.
RETRY = 0.05


class Tally:
    """What was published and what has arrived, by number."""

    def __init__(self, messages: int) -> None:
        self.topic = f"demo-{uuid.uuid4().hex[:8]}"
        self.messages = messages
        self.published: set[int] = set()
        self.arrived: set[int] = set()
        self.again = 0
        self.after_acknowledgement = 0
        self._acknowledged: set[str] = set()
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def arrive(self, message: str, acknowledged: str | None) -> None:
        """A message came to a consumer, and that is the proof that the last is acknowledged."""
        with self._lock:
            if acknowledged is not None:
                self._acknowledged.add(acknowledged)
            self.after_acknowledgement += message in self._acknowledged
            self.again += message in self._seen
            self._seen.add(message)
            self.arrived.add(int(message.split()[1]))

    @property
    def is_complete(self) -> bool:
        """Whether every message has arrived."""
        return len(self.arrived) == self.messages


def run(messages: int) -> int:
    """Run it; the exit code: 0 where every message arrived and is in the ledger."""
    folder = Path(tempfile.mkdtemp(prefix="message_queue-"))
    previous = os.getcwd()
    os.chdir(folder)  # the embedded broker's files are in the current folder
    server = ServerProcess(folder, {"MQ_TOPICS": ""})
    monitor = MonitorProcess(folder, {})
    try:
        is_well = _demonstrate(server, monitor, messages)
    finally:
        for process in (server, monitor):
            process.stop()
        os.chdir(previous)
    if is_well:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    click.secho(f"Something is missing: see the logs in {folder}", fg="red")
    return 1


def _demonstrate(server: ServerProcess, monitor: MonitorProcess, messages: int) -> bool:
    app = make_app(Settings.from_environ())
    click.echo(f"1. A server and a monitor start, on {app.connection_for_write().as_uri()}")
    server.start()
    monitor.start()
    click.echo(f"2. Two producers send {messages} messages, two consumers fetch them.")
    tally = Tally(messages)
    started = time.monotonic()
    threads = [
        *(threading.Thread(target=_produce, args=(server.port, tally, part)) for part in range(2)),
        *(threading.Thread(target=_consume, args=(server.port, tally)) for _ in range(2)),
    ]
    for thread in threads:
        thread.daemon = True
        thread.start()
    _wait(tally, messages // 2)
    server.kill()
    click.echo("3. The server is killed (SIGKILL) half-way, and started again.")
    server.start()
    for thread in threads:
        thread.join(max(0.0, started + PATIENCE - time.monotonic()))
    seconds = time.monotonic() - started
    click.echo(f"   {len(tally.arrived)} messages have arrived after {seconds:.1f} s;")
    click.echo(f"   {tally.again} came twice, {tally.after_acknowledgement} of them acknowledged.")
    recorded = _recorded(app, tally)
    click.echo(f"4. The ledger has {recorded} messages, those that were sent again included.")
    with app.connection_for_write() as connection:
        queue_of(app, tally.topic)(connection.default_channel).delete()
    app.close()
    return (
        tally.is_complete
        and tally.after_acknowledgement == 0
        and len(tally.published) == messages
        and recorded >= messages
    )


def _wait(tally: Tally, arrived: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(tally.arrived) < arrived and time.monotonic() < deadline:
        time.sleep(0.01)


def _produce(port: int, tally: Tally, part: int) -> None:
    producer = Producer(tally.topic, port=port)
    attempt = 0
    for number in range(part, tally.messages, 2):
        while number not in tally.published:
            try:
                producer.connect()
                producer.publish(f"message {number} (attempt {attempt})")
                tally.published.add(number)
            except (OSError, MessageQueueError):
                producer.abort()
                attempt += 1
                time.sleep(RETRY)
    producer.close_socket()


def _consume(port: int, tally: Tally) -> None:
    consumer = Consumer(tally.topic, port=port)
    last: str | None = None
    while not tally.is_complete:
        try:
            consumer.connect()
            message = consumer.fetch(timeout=0.5)
        except (OSError, MessageQueueError):
            consumer.abort()
            last = None  # whether the server heard the acknowledgement is not known
            time.sleep(RETRY)
            continue
        if message is not None:
            tally.arrive(message, acknowledged=last)
            last = message
    with contextlib.suppress(OSError, MessageQueueError):
        consumer.close_socket()
    consumer.abort()


def _recorded(app: Celery, tally: Tally) -> int:
    """How many messages are in the ledger, once the monitor has seen the last."""
    deadline = time.monotonic() + PATIENCE
    with Ledger.from_app(app) as ledger:
        ledger.upgrade()
        while True:
            found = _count(ledger, queue_name(tally.topic))
            if found >= len(tally.published) or time.monotonic() > deadline:
                return found
            time.sleep(0.1)


def _count(ledger: Ledger, queue: str) -> int:
    page = ledger.find(queue=queue, limit=1000)
    found = len(page.tasks)
    while page.next is not None:
        page = ledger.find(queue=queue, limit=1000, after=page.next)
        found += len(page.tasks)
    return found
