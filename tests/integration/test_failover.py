"""A list of broker URLs whose first ones do not answer."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from cadasta.workertoolbox import Config
from tests.monitor_thread import monitoring
from tests.services import wait_until


def make_app(folder: Path, urls: Any, **settings: Any) -> Celery:
    app = Celery("failover", set_as_current=False)
    backend = f"toolbox+sqlite:///{folder}/ledger.sqlite3"
    app.config_from_object(
        Config(queues=["export"], broker_url=urls, result_backend=backend, **settings)
    )
    return app


@pytest.mark.parametrize("strategy", [None, "shuffle", itertools.cycle])
def test_the_next_broker_is_reached_by_the_same_transport(
    tmp_path: Path, rabbitmq_url: str, strategy: Any
) -> None:
    """kombu takes its own then, which waits for a confirmation for ever."""
    vhost = rabbitmq_url.rpartition("/")[2]  # kombu's pools know a broker by its first URL alone
    urls = [f"amqp://127.0.0.1:1/{vhost}", f"amqp://127.0.0.1:2/{vhost}", rabbitmq_url]
    patience = {"max_retries": 60, "interval_start": 0, "interval_step": 0}  # shuffling takes luck
    app = make_app(
        tmp_path,
        urls,
        broker_failover_strategy=strategy,
        broker_transport_options=patience,
        task_publish_retry_policy=patience,
    )
    app.send_task("export.pdf")
    with app.connection_for_write() as connection:
        connection.ensure_connection(**patience)
        assert (
            type(connection.transport).__module__ == "cadasta.workertoolbox.brokers.amqp.transport"
        )
        assert connection.as_uri().startswith("amqp://")
        if not callable(strategy):
            json.dumps(connection.info())  # `celery inspect stats` sends it
    app.close()


def test_a_monitor_on_the_next_redis_leaves_workers_their_messages(
    tmp_path: Path, redis_url: str, redis_prefix: str
) -> None:
    """With kombu's own transport its acknowledgement erases the worker's message."""
    urls = ["redis://127.0.0.1:1", "redis://127.0.0.1:2", redis_url]
    app = make_app(tmp_path, urls, broker_transport_options={"global_keyprefix": redis_prefix})
    app.send_task("export.pdf")
    with app.connection_for_read() as connection, redis.Redis.from_url(redis_url) as client:
        connection.ensure_connection(max_retries=2, interval_start=0)
        queue = app.conf.task_routes.queues["export"]
        assert queue(connection.default_channel).get() is not None
        with monitoring(app) as monitor:
            wait_until(lambda: monitor.recorded == 1, what="the record")
        assert client.hlen(f"{redis_prefix}unacked") == 1
    app.close()
