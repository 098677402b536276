"""The monitor on Amazon SQS, where that answers with errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from celery import Celery

from cadasta.workertoolbox import Config
from tests.monitor_thread import monitoring
from tests.services import wait_until


class Refusing(BaseHTTPRequestHandler):
    """Answers as SQS does to expired credentials."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"__type": "ExpiredTokenException", "message": "expired"}'
        self.send_response(403)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: it is a test."""


@pytest.fixture
def refusing_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_waits_where_sqs_refuses(
    refusing_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", refusing_url)
    app = Celery("proj", set_as_current=False)
    database = f"toolbox+sqlite:///{tmp_path}/ledger.sqlite3"
    app.config_from_object(Config(queues=["export"], broker_url="sqs://", result_backend=database))
    with monitoring(app):
        wait_until(lambda: "The broker is away" in caplog.text, what="the warning")
        assert "next attempt" in caplog.text
    app.close()
