"""The monitor on RabbitMQ."""

from __future__ import annotations

from pathlib import Path

from celery import Celery

from cadasta.workertoolbox import Config
from tests.monitor_thread import monitoring
from tests.services import wait_until


def test_the_largest_batch_is_not_more_than_amqp_can_say(rabbitmq_url: str, tmp_path: Path) -> None:
    app = Celery("proj", set_as_current=False)
    database = f"toolbox+sqlite:///{tmp_path}/ledger.sqlite3"
    app.config_from_object(
        Config(queues=["export"], broker_url=rabbitmq_url, result_backend=database)
    )
    sent = app.send_task("export.pdf")
    with monitoring(app, batch=10_000, interval=0.02) as monitor:
        wait_until(lambda: monitor.ledger.get(sent.id), what="the record")
    assert monitor.recorded == 1
    app.close()
