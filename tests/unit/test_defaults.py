"""The choice of the broker's transport, and an app whose broker is not that of its ``Config``."""

from __future__ import annotations

import pytest
from celery import Celery

from cadasta.workertoolbox.brokers.kinds import require_same_broker
from cadasta.workertoolbox.conf import Config
from cadasta.workertoolbox.errors import ConfigError
from cadasta.workertoolbox.worker.setup import setup_app


@pytest.mark.parametrize(
    ("broker", "url"),
    [
        ("redis://host/0", "amqp://host//"),
        ("amqp://host//", "sqs://"),
        ("amqp://host//", "redis://h"),
    ],
)
def test_another_broker_than_configs_is_told(broker: str, url: str) -> None:
    """Celery lets its own argument win, and keeps the transport of the other."""
    app = Celery("twice", broker=broker, set_as_current=False)
    app.config_from_object(Config(queues=["export"], broker_url=url))
    with pytest.raises(ConfigError, match="the app's broker is"):
        setup_app(app)


def test_the_broker_of_read_and_write_urls_is_configs() -> None:
    app = Celery("apart", set_as_current=False)
    urls = {f"broker_{kind}_url": "redis://host/0" for kind in ("read", "write")}
    app.config_from_object(Config(queues=["export"], broker_url="amqp://host//", **urls))
    assert app.conf.broker_transport == "toolbox-redis"
    require_same_broker(app.conf)
