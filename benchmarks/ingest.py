"""The monitor's speed from RabbitMQ into PostgreSQL: ``python -m benchmarks.ingest``.

Each round fills the monitor queue and lets one process empty it: the monitor, or its rival, a kombu
consumer that only acknowledges. Then 200,000 messages for the monitor's memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
import uuid
from typing import Any

from celery import Celery
from kombu import Connection, Consumer

from benchmarks.common import Figure, pair, show
from benchmarks.publish import vhost
from cadasta.workertoolbox import Config
from tests.services import SERVICES, create_database, drop_database

#: Messages of one round, and of the run for the memory.
MESSAGES, MANY = 20_000, 200_000
#: The monitor's batch; the rival acknowledges as many at once.
BATCH = 500


def make_app(url: str, database: str) -> Celery:
    app = Celery("ingest", set_as_current=False)
    app.config_from_object(
        Config(queues=["export"], broker_url=url, result_backend=f"toolbox+{database}")
    )
    return app


def fill(app: Celery, messages: int) -> None:
    """Put task messages into the monitor queue, as an app's publisher makes them."""
    monitor = app.conf.task_routes.monitor
    stamp = "2026-11-20T09:00:00.123456+00:00"
    with Connection(app.conf.broker_url) as connection:  # without confirms: this is not measured
        channel = connection.default_channel
        monitor(channel).declare()
        producer = app.amqp.Producer(connection)
        for number in range(messages):
            task = app.amqp.as_task_v2(str(uuid.uuid4()), "export.add", (number, number), {})
            producer.publish(
                task.body,
                exchange="",
                routing_key=monitor.name,
                headers={**task.headers, "toolbox_published_at": stamp},
                serializer="json",
                **task.properties,
            )
        while channel.queue_declare(monitor.name, passive=True).message_count < messages:
            time.sleep(0.05)


def acknowledge_only(app: Celery, messages: int) -> float:
    """Messages a second of a consumer that does nothing with them."""
    taken = 0

    def take(message: Any) -> None:
        nonlocal taken
        taken += 1
        if taken % BATCH == 0 or taken == messages:
            message.channel.basic_ack(message.delivery_tag, multiple=True)

    with Connection(app.conf.broker_url) as connection:
        channel = connection.default_channel
        channel.basic_qos(0, 4 * BATCH, False)
        queue = app.conf.task_routes.monitor(channel)
        consumer = Consumer(channel, [queue], on_message=take, auto_declare=False)
        start = time.perf_counter()
        consumer.consume()
        while taken < messages:
            connection.drain_events(timeout=10)
        return messages / (time.perf_counter() - start)


def record(app: Celery, messages: int) -> float:
    """Messages a second of the monitor."""
    from cadasta.workertoolbox.monitor.monitor import Monitor

    monitor = Monitor(app, batch=BATCH)
    monitor.ledger.upgrade()

    start = end = time.perf_counter()

    def stop_at_the_end() -> None:
        nonlocal end
        while monitor.recorded < messages:
            time.sleep(0.005)
        end = time.perf_counter()
        monitor.stop()

    threading.Thread(target=stop_at_the_end, daemon=True).start()
    monitor.run()
    return messages / (end - start)


def in_a_process(what: str, url: str, database: str, messages: int) -> dict[str, float]:
    """Fill the queue here, empty it in a fresh process; its speed and its peak of memory."""
    fill(make_app(url, database), messages)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ingest", "--child", what, url, database, str(messages)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def child(what: str, url: str, database: str, messages: int) -> None:
    app = make_app(url, database)
    rate = {"record": record, "acknowledge": acknowledge_only}[what](app, messages)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rate": rate, "mebibytes": peak}))


def figures(rounds: int) -> list[Figure]:
    """All comparisons of this module."""
    database = create_database(SERVICES["postgres"].url)
    try:
        with vhost() as url:

            def rate(what: str) -> float:
                return in_a_process(what, url, database, MESSAGES)["rate"]

            speed = pair(
                "monitor, RabbitMQ to PostgreSQL",
                "tasks/s",
                lambda: rate("record"),
                lambda: rate("acknowledge"),
                "a consumer that only acknowledges",
                rounds,
            )
            few = in_a_process("record", url, database, MESSAGES)["mebibytes"]
            many = in_a_process("record", url, database, MANY)["mebibytes"]
    finally:
        drop_database(SERVICES["postgres"].url, database)
    what = f"monitor's peak of memory over {MANY:,} tasks"
    memory = Figure(what, "MiB", many, few, f"over {MESSAGES:,} tasks", many / few, 1)
    return [speed, memory]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, url, database, messages = options.child
        child(what, url, database, int(messages))
    else:
        show(figures(options.rounds), options.json)


if __name__ == "__main__":
    main()
