"""Where RabbitMQ's management interface is looked for."""

from __future__ import annotations

import pytest
from kombu import Connection

from cadasta.workertoolbox.brokers.amqp.management import management_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [("amqp://me:pw@host//", "http://host:15672"), ("amqps://me:pw@host//", "https://host:15671")],
)
def test_the_password_goes_no_less_safely_than_to_the_broker(url: str, expected: str) -> None:
    connection = Connection(url)
    assert connection.transport  # which sets TLS; nothing is connected
    assert management_url(connection) == expected
