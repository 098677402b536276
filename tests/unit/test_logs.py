"""Log files and Sentry."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cadasta.workertoolbox.errors import ConfigError
from cadasta.workertoolbox.worker.logs import (
    MAX_BYTES,
    SharedFileHandler,
    log_to_files,
    report_to_sentry,
)


@pytest.fixture(autouse=True)
def root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def test_errors_have_a_file_of_their_own(tmp_path: Path) -> None:
    log_to_files(str(tmp_path / "new" / "folder"))
    log_to_files(str(tmp_path / "new" / "folder"))
    logging.getLogger("proj").info("went well")
    logging.getLogger("proj").error("went badly")
    info = (tmp_path / "new/folder/app.info.log").read_text().splitlines()
    errors = (tmp_path / "new/folder/app.error.log").read_text().splitlines()
    assert [line.split("proj: ")[1] for line in info] == ["went well", "went badly"]
    assert [line.split("proj: ")[1] for line in errors] == ["went badly"]


def test_the_files_rotate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log_to_files(True)
    line = "x" * 2**20
    for _ in range(12):
        logging.getLogger("proj").info(line)
    assert {path.name for path in tmp_path.iterdir()} == {
        "app.error.log",
        "app.info.log",
        "app.info.log.1",
    }


#: Two processes with a file of their own, each with one that it forked; then all four write.
WRITERS = """
import logging, os, sys
from cadasta.workertoolbox.worker.logs import log_to_files
first = os.fork()
log_to_files(sys.argv[1])
second = os.fork()
for number in range(int(sys.argv[2])):
    logging.getLogger("proj").error("%s %s %s", os.getpid(), number, "x" * (number % 2000))
if second:
    assert os.waitpid(second, 0)[1] == 0
    assert not first or os.waitpid(first, 0)[1] == 0
"""


def lines_of(folder: Path, name: str) -> list[list[str]]:
    """The words of each line of a log and of its old files, the oldest first."""
    files = sorted(folder.glob(f"{name}*"), key=lambda path: path.suffix, reverse=True)
    found = []
    for file in sorted(files, key=lambda path: path.name == name):
        found += [line.split("proj: ")[1].split() for line in file.read_text().splitlines()]
    return found


def test_many_processes_share_the_files_and_lose_no_line(tmp_path: Path) -> None:
    each = 4000  # some 16 MiB in all
    command = [sys.executable, "-c", WRITERS, str(tmp_path), str(each)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("app.info.log", "app.error.log"):
        assert (tmp_path / f"{name}.1").stat().st_size <= MAX_BYTES
        assert not (tmp_path / f"{name}.2").exists()
        written: dict[str, list[int]] = {}
        for process, number, *rest in lines_of(tmp_path, name):
            assert "".join(rest) == "x" * (int(number) % 2000)
            written.setdefault(process, []).append(int(number))
        assert [*written.values()] == [[*range(each)]] * 4  # each in its order


def test_a_file_that_others_have_renamed_is_opened_anew(tmp_path: Path) -> None:
    log_to_files(str(tmp_path))
    log = logging.getLogger("proj")
    log.info("one")
    (tmp_path / "app.info.log").rename(tmp_path / "renamed")
    log.info("two")
    (tmp_path / "app.info.log").unlink()
    log.info("three")
    assert "one" in (tmp_path / "renamed").read_text()
    assert (tmp_path / "app.info.log").read_text().split("proj: ")[1:] == ["three\n"]


def test_only_so_many_old_files_are_kept(tmp_path: Path) -> None:
    handler = SharedFileHandler(str(tmp_path / "log"), max_bytes=10, backups=2)
    for number in range(5):
        handler.emit(logging.makeLogRecord({"msg": f"record {number}"}))
    handler.close()
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"log": "record 4\n", "log.1": "record 3\n", "log.2": "record 2\n"}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"SETUP_FILE_LOGGING: .*file/logs/app\.info\.log"):
        log_to_files(str(tmp_path / "file" / "logs"))


def test_sentry_needs_a_dsn() -> None:
    with pytest.raises(ConfigError, match="SENTRY_DSN"):
        report_to_sentry({})


def test_sentry_gets_what_the_environment_says() -> None:
    import sentry_sdk

    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    report_to_sentry(
        {
            "SENTRY_DSN": f"http://key@127.0.0.1:{server.server_port}/1",
            "SENTRY_NAME": "box-7",
            "SENTRY_ENVIRONMENT": "staging",
            "SENTRY_RELEASE": "1.2.3",
        }
    )
    try:
        client = sentry_sdk.get_client()
        assert client.get_integration("celery") is not None
        options = client.options
        assert (options["server_name"], options["environment"], options["release"]) == (
            "box-7",
            "staging",
            "1.2.3",
        )
        sentry_sdk.capture_message("it broke")
        client.flush(timeout=5)
        assert received
    finally:
        client.close()
        sentry_sdk.get_global_scope().set_client(None)
        server.shutdown()
        server.server_close()
