"""The rival: SharQ Server from PyPI, in a virtual environment of its own.

SharQServer 0.2.0, the newest on PyPI, is for Python 2 and asks for packages of 2014 that do not
install any more. Here it runs on Python 3 with SharQ 1.3.0, the newest, and the Flask, gevent and
gunicorn of today: ``sharq_server/server.py`` with two spellings of Python 2 replaced as it is
loaded. Nothing else of it is changed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rate_limited_queue.processes import Child

FOLDER = Path(__file__).resolve().parents[1] / ".rival"
PACKAGES = [
    *("flask", "gevent", "gunicorn", "ujson"),
    *("redis<4", "redis-py-cluster==2.0.0", "msgpack==0.5.6"),
]

#: The WSGI application, for gunicorn.
APPLICATION = """
import configparser, importlib.util, os, pathlib, sys, types

configparser.SafeConfigParser = configparser.ConfigParser
sys.modules["ConfigParser"] = configparser
path = pathlib.Path(importlib.util.find_spec("sharq_server").origin).parent / "server.py"
source = path.read_text().replace("except Exception, e:", "except Exception as e:")
module = types.ModuleType("server")
exec(compile(source, str(path), "exec"), module.__dict__)
app = module.setup_server(os.environ["SHARQ_CONF"]).app
"""

#: Fills the rival's store by its own script: <type> <port> <queues> <jobs> <payload bytes>.
FILL = """
import msgpack, pathlib, importlib.util, redis, sys, time

port, queues, jobs, size = map(int, sys.argv[2:])
folder = pathlib.Path(importlib.util.find_spec("sharq").origin).parent
client = redis.StrictRedis(port=port)
script = client.register_script((folder / "scripts/lua/enqueue.lua").read_text())
payload = b'"' + msgpack.packb({"text": "x" * size}, use_bin_type=True) + b'"'
now = str(int(time.time() * 1000))
pipe = client.pipeline(transaction=False)
for number in range(jobs):
    args = [now, "q%d" % (number % queues), "j%d" % number, payload, 0, -1]
    script(keys=["sharq", sys.argv[1]], args=args, client=pipe)
    if number % 1000 == 999:
        pipe.execute()
pipe.execute()
"""


def install() -> Path:
    """Make the rival's virtual environment, unless it is there; its Python."""
    python = FOLDER / "bin" / "python"
    done = FOLDER / "installed"
    if not done.exists():
        print("Installing SharQ Server ...", file=sys.stderr, flush=True)
        pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)  # noqa: S603
        subprocess.run([*pip, *PACKAGES, "setuptools<81", "wheel"], check=True)  # noqa: S603
        sharq = ["SharQServer==0.2.0", "SharQ==1.3.0"]
        command = [*pip, "--no-deps", "--no-build-isolation", *sharq]
        subprocess.run(command, check=True)  # noqa: S603
        done.touch()
    (FOLDER / "app.py").write_text(APPLICATION)
    (FOLDER / "fill.py").write_text(FILL)
    return python


def start(port: int, redis_port: int, folder: Path) -> Child:
    """Start the rival with one gevent worker, as its own command does."""
    python = install()
    config = folder / "sharq.conf"
    config.write_text(
        "[sharq]\njob_expire_interval: 600000\njob_requeue_interval: 1000\n"
        "default_job_requeue_limit: -1\n[sharq-server]\n[redis]\ndb: 0\nkey_prefix: sharq\n"
        f"conn_type: tcp_sock\nport: {redis_port}\nhost: 127.0.0.1\npassword:\n"
    )
    command = [str(python), "-m", "gunicorn", "-k", "gevent", "-w", "1", "--log-level", "error"]
    command += ["-b", f"127.0.0.1:{port}", "--chdir", str(FOLDER), "app:app"]
    return Child(command, folder / "rival.log", {"SHARQ_CONF": str(config)})


def fill(redis_port: int, queue_type: str, queues: int, jobs: int, size: int) -> None:
    """Enqueue jobs by the rival's own script."""
    script = str(FOLDER / "fill.py")
    command = [str(install()), script, queue_type, *map(str, (redis_port, queues, jobs, size))]
    subprocess.run(command, check=True)  # noqa: S603
