"""The files in deploy/: nginx and supervisord start what they name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sms_gateway.local import Local, free_port, wait_until
from sms_gateway.simulator.forms import chikka_text

EXAMPLE = Path(__file__).parent.parent
DEPLOY = EXAMPLE / "deploy"
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
PROGRAMS = {
    "api",
    "monitor",
    "message1",
    "message2",
    "bord1",
    "reply1",
    "notification1",
    "broadcast1",
}


@pytest.fixture(scope="module")
def nginx() -> str:
    """The program nginx, installed where root can do that."""
    found = shutil.which("nginx", path=PATH)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        remedy = "apt-get update && apt-get install --yes --no-install-recommends nginx-light"
        # Tests of other examples may be installing at the same time.
        install = ["flock", "/tmp/toolbox-tests-apt.lock", "sh", "-c", remedy]
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run(install, env=quiet, capture_output=True, timeout=300)
        found = shutil.which("nginx", path=PATH)
    if found is None:
        pytest.fail("there is no nginx: apt-get install nginx-light", pytrace=False)
    return found


def test_nginx_takes_its_file(nginx: str, tmp_path: Path) -> None:
    command = [nginx, "-t", "-c", str(DEPLOY / "nginx.conf"), "-g", f"pid {tmp_path}/pid;"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stderr


def test_nginx_takes_tls(nginx: str, tmp_path: Path) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    made += ["-nodes", "-subj", "/CN=sms.example.org", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    shutil.copy(DEPLOY / "nginx.conf", tmp_path)
    tls = (DEPLOY / "tls.conf.example").read_text()
    tls = re.sub(r"/etc/ssl/certs/\S+;", f"{tmp_path}/cert.pem;", tls)
    tls = re.sub(r"/etc/ssl/private/\S+;", f"{tmp_path}/key.pem;", tls)
    (tmp_path / "tls.conf").write_text(tls)
    command = [nginx, "-t", "-c", str(tmp_path / "nginx.conf"), "-g", f"pid {tmp_path}/pid;"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def before_api(
    nginx: str, gateway: Callable[..., Local], tmp_path: Path
) -> Iterator[tuple[Local, str]]:
    """An api behind nginx, on a port of its own: the gateway, and nginx's URL."""
    local = gateway()
    local.start_api()
    port = free_port()
    text = (DEPLOY / "nginx.conf").read_text()
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};")
    text = text.replace("127.0.0.1:8000", local.api_url.removeprefix("http://"))
    (tmp_path / "nginx.conf").write_text(text)
    options = ["-c", str(tmp_path / "nginx.conf"), "-g", f"daemon off; pid {tmp_path}/pid;"]
    with (tmp_path / "nginx.log").open("wb") as log:
        process = subprocess.Popen([nginx, *options], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: local.answers(url), "nginx to answer", 20)
        yield local, url
    finally:
        process.terminate()
        process.wait(20)


def test_the_api_behind_nginx(before_api: tuple[Local, str]) -> None:
    local, url = before_api
    form = chikka_text("by-nginx", "639181234567", "bord on")

    def post(**changed: str) -> Any:
        fields = {**form, **changed}
        return local.http.request("POST", f"{url}/message", fields=fields, encode_multipart=False)

    accepted = post()
    assert (accepted.status, accepted.json()["message"]) == (202, "ACCEPTED")
    assert post(message="a" * 70_000).status == 413
    assert local.http.request("GET", f"{url}/health").status == 200
    assert local.http.request("GET", f"{url}/broadcast/1").status == 401
    other = local.http.request("GET", f"{url}/elsewhere")
    assert (other.status, other.json()["message"]) == (404, "NOT FOUND")
    local.stop("api")
    away = post()
    assert (away.status, away.json()["status"]) == (503, 503)
    assert away.headers["Retry-After"] == "10"


def test_supervisord_starts_it_all(gateway: Callable[..., Local], tmp_path: Path) -> None:
    local = gateway()
    local.environ.update(
        SMS_VENV=sys.prefix, SMS_FOLDER=str(EXAMPLE), SMS_RUN=str(tmp_path), SMS_API_PROCESSES="1"
    )
    with local:
        local.start_simulator()
        local.start("supervisord", ["supervisor.supervisord", "-c", f"{DEPLOY}/supervisord.conf"])
        local.wait_for(
            "supervisord",
            lambda: states(local) == {f"sms:{name}": "RUNNING" for name in PROGRAMS},
            "all programs to run",
        )
        wait_until(lambda: local.answers(local.api_url), "the api")
        assert local.text("639181234567", "bord on")["status"] == 202
        [sent] = wait_until(local.sent, "a reply")
        assert "subscribed" in sent["message"]
        log = tmp_path / "message1.log"
        wait_until(lambda: re.search(r"message1\.worker\.\S+ ready", log.read_text()), "its name")
        assert local.stop("supervisord", timeout=40) == {"supervisord": 0}


def states(local: Local) -> dict[str, str]:
    """The programs' states, as supervisorctl tells them."""
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", f"{DEPLOY}/supervisord.conf"]
    done = subprocess.run(
        [*command, "status"], env=local.environ, capture_output=True, text=True, timeout=30
    )
    return dict(line.split()[:2] for line in done.stdout.splitlines())
