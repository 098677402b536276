"""Apps as people have them, with one line added: each row of a table of what fell short once.

Each is run as processes, on RabbitMQ and PostgreSQL.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Exchange, Queue

from cadasta.workertoolbox import Ledger
from cadasta.workertoolbox.ledger.model import Task
from cadasta.workertoolbox.testing import wait_for
from tests.services import Process, wait_until


class Project:
    """A folder with the modules of an app named ``shop``, and its processes."""

    def __init__(self, folder: Path, broker: str, database: str, start: Callable[..., Process]):
        self.folder = folder
        self.broker = broker
        self.database = database
        self.environ = {"BROKER": broker, "DATABASE": database, "PYTHONPATH": str(folder)}
        self._start = start

    def write(self, **modules: str) -> None:
        for name, text in modules.items():
            head, tasks, rest = text.partition(TASKS)
            (self.folder / f"{name}.py").write_text(f"{dedent(head)}{tasks}{rest}")

    def start(self, *arguments: str, ready: str | None = None) -> Process:
        process = self._start("-A", "shop", *arguments, env=self.environ, cwd=self.folder)
        if ready:
            process.wait_for_log(ready)
        return process

    def start_all(self, *options: str) -> None:
        """Start a worker and a monitor, and wait until they work."""
        self.start("worker", "-l", "INFO", "-P", "threads", "-c", "2", *options, ready=r"ready\.")
        self.start("monitor", ready="Recording ")

    def run(self, program: str, code: int = 0) -> str:
        """Run a program of the app's; what it printed, errors included."""
        done = subprocess.run(
            [sys.executable, "-c", dedent(program)],
            env={**os.environ, **self.environ},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def celery(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "celery", "-A", "shop", *arguments],
            env={**os.environ, **self.environ},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def check(self) -> list[dict[str, str]]:
        """The findings of ``celery check`` that are not all right.

        That bindings cannot be read without RabbitMQ's management plugin is none of the app's.
        """
        done = self.celery("check", "--json")
        findings = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert findings, done.stderr
        unread = "bindings could not be read"
        return [one for one in findings if one["level"] != "ok" and unread not in one["text"]]

    def recorded(self, program: str) -> Task:
        """Run a program that prints the id of a task it has sent; the task once it succeeded."""
        task_id = self.run(program).split()[-1]
        with closing(Ledger(f"{self.database}")) as ledger:
            return wait_for(ledger, task_id)


@pytest.fixture
def project(
    tmp_path: Path,
    rabbitmq_url: str,
    postgres_url: str,
    run_celery: Callable[..., Process],
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    for name in list(os.environ):
        if name.startswith(("CELERY_", "AWS_")):  # A deployment on SQS leaves its own.
            monkeypatch.delenv(name)
    return Project(tmp_path, rabbitmq_url, postgres_url, run_celery)


#: The part of each project that has its tasks.
TASKS = """
@app.task(name="mail.send")
def send(to):
    return to

@app.task(name="export.pdf")
def pdf(order):
    return f"{order}.pdf"
"""
SEND = "import shop; print(shop.send.delay('me').id)"


@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_django_settings_with_a_namespace(
    project: Project, broker: str, request: pytest.FixtureRequest
) -> None:
    """Before: broker sqs://, no beat schedule, no timezone, without a word."""
    if broker == "redis":
        options = {"global_keyprefix": request.getfixturevalue("redis_prefix")}
        project.environ["BROKER"] = request.getfixturevalue("redis_url")
        project.environ["CELERY_BROKER_TRANSPORT_OPTIONS"] = json.dumps(options)
    project.write(
        site_settings="""
            import os
            TIME_ZONE = "Asia/Tokyo"
            CELERY_BROKER_URL = os.environ["BROKER"]
            CELERY_RESULT_BACKEND = "toolbox+" + os.environ["DATABASE"]
            CELERY_BEAT_SCHEDULE = {"tick": {"task": "jobs.tick", "schedule": 1.0}}
            CELERY_TASK_ROUTES = {"mail.*": {"queue": "mails"}}
            CELERY_TASK_TIME_LIMIT = 77
            CELERY_BEAT_SCHEDULE_FILENAME = "beat"
        """,
        jobs="""
            from celery import shared_task

            @shared_task(name="jobs.tick")
            def tick():
                return "tock"
        """,
        shop="""
            from celery import Celery
            from cadasta.workertoolbox import adopt
            app = Celery("shop", include=["jobs"])
            app.config_from_object("site_settings", namespace="CELERY")
            adopt(app)
        """
        + TASKS,
    )
    project.start_all("-B")
    task = project.recorded(SEND)
    assert (task.queue, task.result) == ("mails", "me")
    with closing(Ledger(project.database)) as ledger:
        wait_until(lambda: ledger.find(name="jobs.tick", state="SUCCESS").tasks, 30, "beat's task")
    held = project.run(
        """
        from shop import app
        print(app.conf.task_time_limit, app.timezone, app.conf.worker_enable_remote_control,
              app.connection_for_write().transport_cls)
        """
    )
    transport = {"rabbitmq": "toolbox-amqp", "redis": "toolbox-redis"}[broker]
    assert held.split() == ["77", "Asia/Tokyo", "True", transport]
    assert [one for one in project.check() if one["subject"] != "Redis's memory"] == []


def test_a_celeryconfig_with_queues_of_its_own(project: Project) -> None:
    """Before: the module's other settings are gone."""
    project.write(
        celeryconfig="""
            import os
            from kombu import Exchange, Queue
            from cadasta.workertoolbox import Config

            broker_url = os.environ["BROKER"]
            result_backend = "toolbox+" + os.environ["DATABASE"]
            timezone = "Europe/Paris"
            task_queues = [
                Queue("mails", Exchange("mails", type="direct"), routing_key="mails"),
                Queue("files", Exchange("files", type="topic"), routing_key="files.#",
                      queue_arguments={"x-max-length": 1000}),
            ]
            task_routes = {
                "mail.*": {"queue": "mails", "exchange": "mails", "routing_key": "mails"},
                "export.*": {"exchange": "files", "routing_key": "files.pdf"},
            }
            task_annotations = {"export.pdf": {"rate_limit": "100/s"}}
            config = Config(base=globals())
        """,
        shop="""
            from celery import Celery
            app = Celery("shop")
            app.config_from_object("celeryconfig:config")
        """
        + TASKS,
    )
    # As the fleet of before has declared them.
    with Connection(project.broker) as connection:
        for queue in (
            Queue("mails", Exchange("mails", type="direct"), routing_key="mails"),
            Queue(
                "files",
                Exchange("files", type="topic"),
                routing_key="files.#",
                queue_arguments={"x-max-length": 1000},
            ),
        ):
            queue(connection.default_channel).declare()
    project.start_all()
    assert project.recorded(SEND).queue == "mails"
    task = project.recorded("import shop; print(shop.pdf.delay(7).id)")
    assert (task.queue, task.result) == ("files", "7.pdf")
    held = project.run("from shop import *; print(app.timezone, pdf.rate_limit)")
    assert held.split() == ["Europe/Paris", "100/s"]
    # A producer of before, which knows nothing of the toolbox, reaches the worker all the same.
    old = Celery("old", broker=project.broker, set_as_current=False)
    old.send_task("export.pdf", (8,), task_id="of-before", exchange="files", routing_key="files.x")
    program = "import shop; print(shop.app.AsyncResult('of-before').get(timeout=30))"
    assert project.run(program).split()[-1] == "8.pdf"
    assert project.check() == []


def test_broker_backend_and_priorities_of_the_constructor(project: Project) -> None:
    """Before: SQS's options, no confirms; queues without priorities; each result lost."""
    project.write(
        shop="""
            import os
            from celery import Celery
            from cadasta.workertoolbox import adopt
            app = Celery("shop", broker=os.environ["BROKER"],
                         backend="db+" + os.environ["DATABASE"])
            app.conf.task_queue_max_priority = 10
            adopt(app, queues=["mail", "export"])
        """
        + TASKS
    )
    project.run("import shop; from cadasta.workertoolbox import setup_app; setup_app(shop.app)")
    project.start_all()
    task = project.recorded("import shop; print(shop.send.apply_async(('me',), priority=5).id)")
    assert (task.result, task.priority) == ("me", 5)
    options = project.run("import shop; print(shop.app.conf.broker_transport_options)")
    assert "'confirm_publish': True" in options
    assert "region" not in options
    assert [finding for finding in project.check() if finding["level"] == "error"] == []


def test_results_on_postgresql_that_the_environment_names(project: Project) -> None:
    """Before: SQLAlchemy 2.1 wants psycopg 3, every result is lost, ``check`` says all is well."""
    project.environ.update(
        CELERY_BROKER_URL=project.broker, CELERY_RESULT_BACKEND="db+" + project.database
    )
    project.write(
        shop="""
            from celery import Celery
            from cadasta.workertoolbox import Config
            app = Celery("shop")
            app.config_from_object(Config(queues=["mail"]))
        """
        + TASKS
    )
    project.run("import shop; from cadasta.workertoolbox import setup_app; setup_app(shop.app)")
    project.start_all()
    assert project.recorded(SEND).result == "me"
    assert [finding for finding in project.check() if finding["level"] == "error"] == []


@pytest.mark.parametrize("line", ["adopt(app, queues=['mail', 'bulk'])", "CONFIG"])
def test_settings_that_come_after_the_line(project: Project, line: str) -> None:
    """Before: the router is replaced; nothing is recorded; only ``check`` tells."""
    config = (
        "app.config_from_object(Config(queues=['mail', 'bulk'], broker_url=os.environ['BROKER'], "
        "result_backend='toolbox+' + os.environ['DATABASE']))"
    )
    head = """
        import os
        from celery import Celery
        from cadasta.workertoolbox import Config, adopt
        app = Celery("shop")
    """
    before = (
        "app.conf.update(broker_url=os.environ['BROKER'], "
        "result_backend='toolbox+' + os.environ['DATABASE'])\n"
    )
    after = """
        app.conf.update(task_routes={"mail.*": {"queue": "bulk"}}, timezone="Asia/Tokyo")
        app.conf.task_routes = {"mail.*": "bulk"}
    """
    text = dedent(head) + (config if line == "CONFIG" else before + line) + "\n" + dedent(after)
    project.write(shop=text + TASKS)
    project.start_all()
    assert project.recorded(SEND).queue == "bulk"
    assert project.run("import shop; print(shop.app.timezone)").split() == ["Asia/Tokyo"]
    assert project.check() == []


def test_a_default_exchange_of_another_type(project: Project) -> None:
    """Before: each delay() fails with 406."""
    project.write(
        shop="""
            import os
            from celery import Celery
            from cadasta.workertoolbox import adopt
            app = Celery("shop", broker=os.environ["BROKER"],
                         backend="toolbox+" + os.environ["DATABASE"])
            app.conf.task_default_exchange = "default"
            if "PLAIN" not in os.environ:
                adopt(app)
        """
        + TASKS
    )
    with Connection(project.broker) as connection:
        queue = Queue("celery", Exchange("default", type="direct"), routing_key="celery")
        queue(connection.default_channel).declare()
    project.start_all()
    assert project.recorded(SEND).queue == "celery"
    assert project.check() == []


def test_a_flask_factory_whose_tasks_ignore_their_results(project: Project) -> None:
    """As Flask's own documentation has it, with one line added."""
    project.write(
        shop="""
            import os
            from celery import Celery, Task, shared_task
            from flask import Flask
            from cadasta.workertoolbox import adopt

            def celery_init_app(flask_app):
                class FlaskTask(Task):
                    def __call__(self, *args, **kwargs):
                        with flask_app.app_context():
                            return self.run(*args, **kwargs)

                celery_app = Celery(flask_app.name, task_cls=FlaskTask)
                celery_app.config_from_object(flask_app.config["CELERY"])
                celery_app.set_default()
                adopt(celery_app, queues=["mail"])
                flask_app.extensions["celery"] = celery_app
                return celery_app

            def create_app():
                flask_app = Flask("shop")
                flask_app.config["CELERY"] = dict(
                    broker_url=os.environ["BROKER"],
                    result_backend="toolbox+" + os.environ["DATABASE"],
                    task_ignore_result=True,
                )
                celery_init_app(flask_app)
                return flask_app

            @shared_task(name="mail.send")
            def send(to):
                from flask import current_app
                return current_app.name

            app = create_app().extensions["celery"]
        """
    )
    project.start_all()
    task = project.recorded(SEND)
    assert (task.state, task.result, task.queue) == ("SUCCESS", None, "mail")
    assert project.check() == []


def _refused(project: Project, url: str, **settings: Any) -> str:
    """The monitor of an app with that broker has ended; what it said."""
    project.environ.update(CELERY_BROKER_URL=url, SETTINGS=json.dumps(settings))
    project.write(
        shop="""
            import json, os
            from celery import Celery
            from cadasta.workertoolbox import Config
            app = Celery("shop")
            app.config_from_object(
                Config(queues=["mail"], result_backend="toolbox+" + os.environ["DATABASE"],
                       **json.loads(os.environ["SETTINGS"]))
            )
        """
    )
    done = project.celery("monitor")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "pw:secret" not in done.stderr
    return done.stderr


def test_a_permanent_error_of_the_broker_ends_the_monitor(project: Project) -> None:
    """Before: it repeats "the broker is away" every 0.5 s for ever."""
    with Connection(project.broker) as connection:
        Exchange("default", type="direct")(connection.default_channel).declare()
    said = _refused(project, project.broker, task_default_exchange="default")
    assert "PreconditionFailed" in said
    assert "task_default_exchange" in said
    base = project.broker.rpartition("/")[0]
    assert "check the virtual host in broker_url" in _refused(project, f"{base}/no-such-vhost")
    scheme, _, rest = project.broker.partition("://")
    host = rest.rpartition("@")[2]
    said = _refused(project, f"{scheme}://nobody:secret@{host}")
    assert "check the user and the password" in said
    assert "nobody:secret" not in said


def test_no_broker_named_and_no_such_queue_are_told_at_once(project: Project) -> None:
    """Before: credentials of SQS are missing; a TopologyError, in production."""
    head = "from celery import Celery\nfrom cadasta.workertoolbox import Config, adopt\n"
    project.write(shop=head + "app = Celery('shop')\nadopt(app, queues=['mail'])\n" + TASKS)
    for arguments in (("worker", "-P", "solo"), ("monitor",), ("check",)):
        done = project.celery(*arguments)
        assert done.returncode != 0
        assert "no broker is named" in done.stdout + done.stderr, arguments
    assert "no broker is named" in project.run(SEND, code=1)
    project.write(
        shop=head
        + "app = Celery('shop', broker='amqp://nowhere.invalid')\n"
        + "app.conf.task_routes = {'mail.*': 'mails'}\nadopt(app, queues=['mail'])\n"
        + TASKS
    )
    assert "sends tasks to the queue 'mails'" in project.run(SEND, code=1)
