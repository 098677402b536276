"""The publisher's cost of the monitor copy: ``python -m benchmarks.publish``.

The same task is published by plain Celery and by an app of the toolbox, in turn, in one process,
with no result backend, on the same broker with the same transport options.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery

from benchmarks.common import Figure, pair, show
from cadasta.workertoolbox import Config
from tests.services import SERVICES, VhostPool, vhosts_for

#: Publishes of one round.
PUBLISHES = 500


def publisher(app: Celery) -> Callable[[], float]:
    """A function that publishes one round and tells the microseconds of one ``delay()``."""

    @app.task(name="export.add")
    def add(x: int, y: int) -> int:
        return x + y

    def run() -> float:
        start = time.perf_counter()
        for number in range(PUBLISHES):
            add.delay(number, number)
        return (time.perf_counter() - start) / PUBLISHES * 1e6

    return run


def compare(what: str, url: str, options: dict[str, Any], rounds: int) -> Figure:
    """One broker: an app of the toolbox and a plain one."""
    common: dict[str, Any] = {"broker_url": url, "broker_transport_options": options}
    ours = Celery("ours", set_as_current=False)
    ours.config_from_object(Config(queues=["export"], result_backend="disabled://", **common))
    plain = Celery("plain", set_as_current=False)
    plain.conf.update(
        task_default_queue="plain",
        result_backend="disabled://",
        **{**common, "broker_transport_options": dict(ours.conf.broker_transport_options)},
    )
    figure = pair(what, "µs", publisher(ours), publisher(plain), "plain Celery", rounds)
    ours.close()
    plain.close()
    return figure


@contextmanager
def vhost() -> Iterator[str]:
    """The URL of a virtual host of this run."""
    url = SERVICES["rabbitmq"].url
    with VhostPool(vhosts_for(url), url) as pool:
        yield pool.take()


def figures(rounds: int) -> list[Figure]:
    """All comparisons of this module."""
    found = []
    with vhost() as url:
        for confirm in (True, False):
            what = f"delay() on RabbitMQ, {'with' if confirm else 'without'} confirm_publish"
            found.append(compare(what, url, {"confirm_publish": confirm}, rounds))
    prefix = {"global_keyprefix": f"benchmark-{uuid.uuid4().hex}:"}
    redis_url = SERVICES["redis"].url
    try:
        found.append(compare("delay() on Redis", redis_url, prefix, rounds))
    finally:
        _remove_keys(redis_url, prefix["global_keyprefix"])
    with tempfile.TemporaryDirectory() as folder:
        url = f"embedded:///{os.path.abspath(folder)}/broker.sqlite3"
        found.append(compare("delay() on the embedded broker", url, {}, rounds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    show(figures(options.rounds), options.json)


def _remove_keys(url: str, prefix: str) -> None:
    import redis

    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(f"{prefix}*"):
            client.delete(key)


if __name__ == "__main__":
    main()
