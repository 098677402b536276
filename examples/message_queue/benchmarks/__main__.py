"""Prints the README's figures: ``python -m benchmarks`` in this folder, with RabbitMQ running.

TEST_RABBITMQ_URL names RabbitMQ (default amqp://guest:guest@127.0.0.1:5672//).
"""

from __future__ import annotations

import os
import platform
import socket
import tempfile
import uuid
from pathlib import Path
from statistics import median

from kombu import Connection
from message_queue.processes import ServerProcess

from .load import Clients
from .simple_queue import measure

URL = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
MESSAGE = "x" * 100
#: Messages of one measurement, by the number of connections.
MESSAGES = {1: 1000, 16: 4000, 256: 4000}
ROUNDS = 3
IDLE = 2000


def main() -> None:
    """Measure, and print a table."""
    name = f"bench-{uuid.uuid4().hex}"
    environ = {
        "CELERY_BROKER_URL": URL,
        "CELERY_TASK_DEFAULT_EXCHANGE": f"x-{name}",
        "CELERY_PLATFORM_QUEUE_NAME": f"monitor-{name}",
    }
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print(f"{'':24}{'connections':>12}{'ours':>12}{'rival':>12}{'ratio':>8}  rival")
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(Path(folder), environ)
        server.start()
        try:
            for connections, total in MESSAGES.items():
                measure_speed(server.port, name, connections, total)
            measure_memory(server, name)
        finally:
            server.stop()
            with Connection(URL) as connection:
                channel = connection.channel()
                for queue in (f"monitor-{name}", f"mq.{name}"):
                    channel.queue_delete(queue)
                channel.exchange_delete(f"x-{name}")


def measure_speed(port: int, topic: str, connections: int, total: int) -> None:
    """Print what a number of connections does, beside SimpleQueue, in turn."""
    ours, simple, single = [], [], []
    for _ in range(ROUNDS):
        simple.append(measure(URL, MESSAGE, total))
        single.append(measure(URL, MESSAGE, total, prefetch=1))
        producers = Clients(port, "PRODUCER", topic, connections)
        publishing = producers.run(MESSAGE.encode(), total)
        producers.close()
        consumers = Clients(port, "CONSUMER", topic, connections)
        ours.append((publishing, consumers.run(b"FETCH", total)))
        consumers.close()
    for what, rival, times, index in (
        ("publishes/s", "SimpleQueue", simple, 0),
        ("fetches/s", "SimpleQueue, which takes all at once", simple, 1),
        ("fetches/s", "SimpleQueue, prefetch 1", single, 1),
    ):
        mine = total / median(time[index] for time in ours)
        other = total / median(time[index] for time in times)
        show(what, connections, mine, other, rival)
    both = [2 * total / median(sum(time) for time in times) for times in (ours, simple)]
    show("publishes + fetches/s", connections, both[0], both[1], "SimpleQueue")


def show(what: str, connections: int, mine: float, other: float, rival: str) -> None:
    """Print a line."""
    ratio = mine / other
    print(f"{what:24}{connections:12,}{mine:12,.0f}{other:12,.0f}{ratio:8.2f}  {rival}", flush=True)


def measure_memory(server: ServerProcess, topic: str) -> None:
    """Print the server's memory with idle connections, and with none of these."""
    before = resident(server.pid)
    idle = [Clients(server.port, "CONSUMER", topic, 1).sockets[0] for _ in range(IDLE)]
    show("memory, idle, MiB", IDLE, resident(server.pid), before, "the same server without them")
    for sock in idle:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()


def resident(pid: int) -> float:
    """The memory of a process, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
