"""The gateway's processes on one machine, as children: for the demonstration, tests, benchmarks."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import urllib3

from .errors import GatewayError

T = TypeVar("T")
TOKEN = "an operator's token"  # noqa: S105 - of these child processes alone
#: Settings of whoever runs this, which the children must not obey.
FOREIGN = ("CELERY_", "SMS_", "CHIKKA_", "TWILIO_", "AWS_", "SENTRY_")
ALL_QUEUES = "message,bord,reply,notification,broadcast,celery"


def wait_until(ask: Callable[[], T | None], what: str, timeout: float = 60.0) -> T:
    """Ask until the answer is true, and return it; GatewayError after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while True:
        found = ask()
        if found:
            return found
        if time.monotonic() > end:
            raise GatewayError(f"waited {timeout:g} seconds in vain for {what}")
        time.sleep(0.1)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, below those of outgoing connections."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class Local:
    """Api, simulator, workers and monitor in one folder. Leaving the block ends them all.

    Args:
        folder: where their logs go, and broker and databases where no servers are named.
        environ: settings of all of them.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.api_url = f"http://127.0.0.1:{(api_port := free_port())}"
        self.simulator_url = f"http://127.0.0.1:{(simulator_port := free_port())}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        self.environ = {
            **kept,
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser",
            "SMS_DIRECTORY": str(folder / ".sms_gateway"),
            "SMS_OPERATOR_TOKEN": TOKEN,
            "SMS_PORT": str(api_port),
            "SMS_PROVIDER_URL": self.simulator_url,
            "SMS_PUBLIC_URL": self.api_url,
            "SMS_GATEWAY_URL": self.api_url,
            "SMS_SIMULATOR_PORT": str(simulator_port),
            **(environ or {}),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.http = urllib3.PoolManager(maxsize=32, retries=False, timeout=30.0)

    def __enter__(self) -> Local:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # -- processes

    def start(
        self, name: str, command: list[str], environ: Mapping[str, str] | None = None
    ) -> None:
        """Start a process; what it prints goes to ``<name>.log``."""
        setpriv = shutil.which("setpriv")  # Linux: it ends with us, even if we are killed
        prefix = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(  # noqa: S603 - our own programs
                [*prefix, sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.environ, **(environ or {})},
                cwd=self.folder,
                start_new_session=True,
            )

    def start_web(self) -> None:
        """Start the api and the simulator, and wait until they answer."""
        self.start_simulator()
        self.start_api()

    def start_api(self) -> None:
        """Start the api, and wait until it answers."""
        self.start("api", ["sms_gateway", "api"])
        self.wait_for("api", lambda: self.answers(self.api_url), "it to answer")

    def start_simulator(self) -> None:
        """Start the simulator, and wait until it answers."""
        self.start("simulator", ["sms_gateway", "simulator"])
        self.wait_for("simulator", lambda: self.answers(self.simulator_url), "it to answer")

    def start_worker(self, name: str, queues: str = ALL_QUEUES, concurrency: int = 2) -> None:
        """Start a worker; :meth:`wait_for_log` tells when it is ready."""
        options = ["-Q", queues, "-c", str(concurrency), "-l", "INFO", "-n", f"{name}@local"]
        self.start(name, ["celery", "-A", "sms_gateway", "worker", *options])

    def start_monitor(self) -> None:
        """Start the toolbox's monitor."""
        self.start("monitor", ["celery", "-A", "sms_gateway", "monitor"])

    def wait_for_log(self, name: str, pattern: str, timeout: float = 60.0) -> None:
        """Wait until a process has printed what matches a pattern."""
        self.wait_for(name, lambda: re.search(pattern, self.log_text(name)), pattern, timeout)

    def wait_until_ready(self, *names: str) -> None:
        """Wait for workers and the monitor."""
        for name in names:
            self.wait_for_log(name, r" ready\.|Recording ")

    def wait_for(self, name: str, ask: Callable[[], Any], what: str, timeout: float = 60.0) -> None:
        """Wait for a process; raises GatewayError, with its log, where it ends before."""

        def look() -> bool:
            ended = self.processes[name].poll() is not None
            found = bool(ask())
            if ended and not found:
                raise GatewayError(f"{name} ended before {what}:\n{self.log_text(name)[-3000:]}")
            return found

        wait_until(look, f"{name}: {what}", timeout)

    def kill(self, name: str, *, with_children: bool = True) -> None:
        """SIGKILL for a process, and by default for the processes that it has started."""
        process = self.processes.pop(name)
        if with_children:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()

    def stop(self, *names: str, timeout: float = 20.0) -> dict[str, int]:
        """Ask processes to end, by default all, and kill what does not; return their exit codes."""
        ending = [name for name in self.processes if not names or name in names]
        for name in ending:
            if self.processes[name].poll() is None:
                self.processes[name].terminate()
        codes = {}
        deadline = time.monotonic() + timeout
        for name in ending:
            process = self.processes.pop(name)
            try:
                codes[name] = process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                codes[name] = -signal.SIGKILL
            try:
                os.killpg(process.pid, signal.SIGKILL)  # what it may have left behind
            except ProcessLookupError:
                pass
            process.wait()
        return codes

    def log(self, name: str) -> Path:
        """Where a process prints to."""
        return self.folder / f"{name}.log"

    def log_text(self, name: str) -> str:
        """What a process printed."""
        return self.log(name).read_text(errors="replace") if self.log(name).exists() else ""

    def run(self, *arguments: str) -> str:
        """Run Python with these arguments to its end; what it prints."""
        done = subprocess.run(  # noqa: S603 - our own programs
            [sys.executable, *arguments],
            env=self.environ,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise GatewayError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    # -- requests

    def answers(self, url: str) -> bool:
        """Whether a server answers there."""
        try:
            return self.http.request("GET", f"{url}/nothing", timeout=5.0).status == 404
        except urllib3.exceptions.HTTPError:
            return False

    def post(
        self, path: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        """Post a form to the api."""
        return self.http.request(
            "POST",
            self.api_url + path,
            fields=dict(form),
            encode_multipart=False,
            headers=dict(headers or {}),
        )

    def operator(self, method: str, path: str, content: Any = None) -> tuple[int, Any]:
        """Ask the api for something as an operator; the status and the JSON."""
        response = self.http.request(
            method,
            self.api_url + path,
            body=None if content is None else json.dumps(content),
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        return response.status, response.json()

    def simulator(self, path: str, content: Any = None) -> Any:
        """Ask the simulator, or with ``content`` tell it something; the JSON of its answer."""
        response = self.http.request(
            "GET" if content is None else "POST",
            self.simulator_url + path,
            body=None if content is None else json.dumps(content),
        )
        if response.status != 200:
            raise GatewayError(f"the simulator answered {response.status}: {response.data!r}")
        return response.json()

    def text(self, number: str, message: str, **more: Any) -> dict[str, Any]:
        """Have the simulator post a text; what it says of it."""
        content = {"mobile_number": number, "message": message, **more}
        found: dict[str, Any] = self.simulator("/texts", content)
        return found

    def sent(self) -> list[dict[str, Any]]:
        """What the provider has sent."""
        found: list[dict[str, Any]] = self.simulator("/sent")
        return found
