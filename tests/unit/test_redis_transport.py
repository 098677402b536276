"""The toolbox's Redis transport: what it says to whom."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from cadasta.workertoolbox import Config

TLS_HANDSHAKE = b"\x16\x03"


@pytest.mark.parametrize("options", [{}, {"broker_use_ssl": {"ssl_cert_reqs": "none"}}])
def test_rediss_speaks_tls(options: dict[str, Any]) -> None:
    """The password is not sent in clear, with TLS options or without."""
    heard: list[bytes] = []

    def listen() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                heard.append(client.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = threading.Thread(target=listen)
        listener.start()
        url = f"rediss://:hunter2@127.0.0.1:{server.getsockname()[1]}/0"
        app = Celery("tls", set_as_current=False)
        app.config_from_object(Config(queues=["export"], broker_url=url, **options))
        with app.connection_for_write() as connection, pytest.raises(OperationalError):
            connection.ensure_connection(max_retries=1, interval_start=0)
        server.shutdown(socket.SHUT_RDWR)
        listener.join()
    assert heard
    assert all(data.startswith(TLS_HANDSHAKE) for data in heard)
