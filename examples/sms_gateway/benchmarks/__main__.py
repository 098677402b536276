"""``python -m benchmarks --broker amqp://... --database postgresql://...``, both empty.

Texts accepted a second by one process of the api, beside a Flask view that publishes the same task
by Celery alone; and texts to replies, end to end.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from kombu import Connection
from sms_gateway.local import Local, free_port, wait_until

from .client import CLIENTS, post_all

THREADS = 16
WORKERS = 4


def main() -> None:
    """Run all and print the figures."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--broker", required=True, help="an empty virtual host of RabbitMQ")
    parser.add_argument("--database", required=True, help="an empty database of PostgreSQL")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=1500, help="a round of accepting")
    parser.add_argument("--conversations", type=int, default=600)
    parser.add_argument("--only", choices=("accept", "replies"))
    chosen = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    settings = {"CELERY_BROKER_URL": chosen.broker, "SMS_DATABASE_URL": chosen.database}
    with tempfile.TemporaryDirectory() as folder, Local(Path(folder), settings) as local:
        if chosen.only != "replies":
            accepting(local, chosen.rounds, chosen.texts)
            purge(chosen.broker, "message", "platform.fifo", "rival")
        if chosen.only != "accept":
            replying(local, chosen.conversations)


def accepting(local: Local, rounds: int, texts: int) -> None:
    """Texts accepted a second, in turn with the rivals."""
    local.start_api()
    rivals = {
        "Flask and Celery, without confirms": start_rival(local, "plain", ""),
        "Flask and Celery, with confirms": start_rival(local, "confirms", "1"),
    }
    urls = {"the api": local.api_url, **rivals}
    found: dict[str, list[float]] = {name: [] for name in urls}
    for number in range(rounds + 1):
        for name, url in urls.items():
            begun = time.monotonic()
            post_all(url, f"accept-{number}", texts)
            if number:  # the first is to warm up
                found[name].append(texts / (time.monotonic() - begun))
    print(
        f"texts accepted a second, one process with {THREADS} threads, {CLIENTS} clients, RabbitMQ"
    )
    ours = statistics.median(found["the api"])
    for name, rates in found.items():
        rate = statistics.median(rates)
        print(f"  {name:36} {rate:8,.0f} /s   the api is at {ours / rate:.2f} of it")
    print(f"  (medians of {rounds} rounds of {texts} texts, in turn)\n", flush=True)
    local.stop()


def start_rival(local: Local, name: str, confirms: str) -> str:
    """Start the Flask view under the same server as the api; its URL."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    options = ["-b", f"127.0.0.1:{port}", "-k", "gthread", "--threads", str(THREADS), "-w", "1"]
    command = ["gunicorn", *options, "--no-control-socket", "--keep-alive", "60"]
    here = str(Path(__file__).parent.parent)
    environ = {"PYTHONPATH": here, "RIVAL_CONFIRMS": confirms}
    local.start(name, [*command, "benchmarks.rival:application"], environ)
    local.wait_for(name, lambda: local.answers(url), "it to answer")
    return url


def replying(local: Local, texts: int) -> None:
    """Texts to replies a second, and the time from accept to the provider's send."""
    local.start_web()
    local.simulator("/control", {"receipts": False})
    names = [f"worker{number}" for number in range(WORKERS)]
    for name in names:
        local.start_worker(name, concurrency=1)
    local.start_monitor()
    local.wait_until_ready(*names, "monitor")
    wait_until(lambda: queue_is_empty(local), "the texts of before", 600)
    local.http.request("DELETE", f"{local.simulator_url}/sent")
    begun = time.monotonic()
    post_all(local.api_url, "flood", texts)
    wait_until(lambda: len(local.sent()) == texts, "all replies", 300)
    rate = texts / (time.monotonic() - begun)
    print(f"texts to replies, {WORKERS} workers of one process each, RabbitMQ and PostgreSQL")
    print(f"  {texts} texts at once                    {rate:8,.0f} /s")
    local.http.request("DELETE", f"{local.simulator_url}/sent")
    pace = rate / 2
    accepted = post_all(local.api_url, "paced", texts, pace)
    wait_until(lambda: len(local.sent()) == texts, "all replies", 300)
    waits = sorted(_wait(one, accepted) for one in local.sent())
    p50, p95 = waits[len(waits) // 2], waits[int(len(waits) * 0.95)]
    print(f"  from accept to the provider's send, at {pace:,.0f} texts a second:")
    print(f"  p50 {p50:.3f} s, p95 {p95:.3f} s")
    sys.stdout.flush()


def purge(broker: str, *queues: str) -> None:
    """Throw away what nobody is to answer."""
    with Connection(broker) as connection:
        for queue in queues:
            connection.default_channel.queue_purge(queue)


def queue_is_empty(local: Local) -> bool:
    """Whether the provider is asked for nothing more."""
    before = len(local.sent())
    time.sleep(2)
    return len(local.sent()) == before


def _wait(sent: dict[str, Any], accepted: dict[str, float]) -> float:
    return datetime.fromisoformat(sent["at"]).timestamp() - accepted[sent["mobile_number"]]


if __name__ == "__main__":
    main()
