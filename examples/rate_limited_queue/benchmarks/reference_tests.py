"""Runs the tests that SharQ Server has of its HTTP API, unchanged, over a real socket.

    python -m benchmarks.reference_tests /path/to/sharq-server/tests.py

The module ``sharq_server`` that they import is a stand-in here: its test client speaks HTTP to a
server of ours, and the Redis client by which they flush their database is a real one, of a private
redis-server.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rate_limited_queue.embedded import running
from rate_limited_queue.processes import running_server

STAND_IN = """
import os, redis, urllib.error, urllib.request

class Response:
    def __init__(self, status_code, data):
        self.status_code, self.data = status_code, data

class Http:
    def _call(self, method, path, data=None, content_type="text/plain"):
        request = urllib.request.Request(
            os.environ["SERVER"] + path, method=method,
            data=data.encode() if isinstance(data, str) else data,
            headers={"Content-Type": content_type},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Response(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Response(error.code, error.read())

    def get(self, path, **more):
        return self._call("GET", path, **more)

    def post(self, path, data="", **more):
        return self._call("POST", path, data, **more)

    def delete(self, path, data="", **more):
        return self._call("DELETE", path, data, **more)

class App:
    def test_client(self):
        return Http()

class Queue:
    _r = redis.Redis(unix_socket_path=os.environ["SOCKET"])

class Server:
    app, sq = App(), Queue()

def setup_server(path):
    return Server()
"""


def main(tests: Path) -> int:
    """Run the file ``tests``; the exit code of unittest."""
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "redis") as own_redis:
        folder = Path(name)
        (folder / "sharq_server.py").write_text(STAND_IN)
        (folder / "ujson.py").write_text("from json import *\n")
        settings = {
            "RLQ_REDIS_CONN_TYPE": "unix_sock",
            "RLQ_REDIS_UNIX_SOCKET_PATH": str(own_redis),
        }
        with running_server(folder, settings) as url:
            environ = {"PYTHONPATH": name, "SERVER": url, "SOCKET": str(own_redis)}
            return subprocess.call(  # noqa: S603
                [sys.executable, "-m", "unittest", "-v", tests.name],
                cwd=tests.resolve().parent,
                env={**os.environ, **environ},
            )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
