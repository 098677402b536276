"""The monitor on Redis, where any client may push anything on its queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from sqlalchemy import create_engine, text

from cadasta.workertoolbox import Config
from tests.monitor_thread import monitoring
from tests.services import wait_until

PLAIN: dict[str, Any] = {
    "body": "e30=",
    "headers": {},
    "properties": {"body_encoding": "base64", "delivery_tag": "tag", "delivery_info": {}},
}
WRONG = [
    PLAIN | {"body": "never base64"},
    PLAIN | {"body": {"task": "export.pdf"}},
    PLAIN | {"headers": ["task", "export.pdf"]},
    PLAIN | {"properties": {"body_encoding": "rot13"}},
    PLAIN | {"properties": {"delivery_info": "export"}},
]


def test_messages_of_a_foreign_form_do_not_stop_it(
    redis_url: str, redis_prefix: str, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path}/ledger.sqlite3"
    app = Celery("proj", set_as_current=False)
    app.config_from_object(
        Config(
            queues=["export"],
            broker_url=redis_url,
            broker_transport_options={"global_keyprefix": redis_prefix},
            result_backend=f"toolbox+{database}",
        )
    )
    with redis.Redis.from_url(redis_url) as client:
        for payload in WRONG:
            client.lpush(redis_prefix + app.conf.PLATFORM_QUEUE_NAME, json.dumps(payload))
    sent = app.send_task("export.pdf")
    with monitoring(app, interval=0.02) as monitor:
        wait_until(lambda: monitor.ledger.get(sent.id), what="the record")
    engine = create_engine(database)
    with engine.connect() as connection:
        bodies = connection.scalars(text("SELECT body FROM celery_task_undecodable")).all()
    engine.dispose()
    assert monitor.recorded == len(WRONG) + 1
    assert len(bodies) == len(WRONG)
    assert any(b"never base64" in body for body in bodies)
    app.close()
