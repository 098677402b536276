"""What the toolbox gives to the tests of applications, used as they would."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from pathlib import Path

import pytest
from celery import Celery

from cadasta.workertoolbox import Config, build_functional_tests, setup_app
from tests.acceptance.deployment import Deployment

EXPORTER = """
from celery import Celery
from cadasta.workertoolbox import Config

app = Celery("exporter")
app.config_from_object(Config(queues=["export"]))

@app.task(name="export.pdf")
def pdf(number):
    return f"{number}.pdf"

@app.task(name="export.fail")
def fail():
    raise ValueError("no paper")
"""
CONFTEST = 'pytest_plugins = ["cadasta.workertoolbox.testing_fixtures"]\n'
TESTS = """
import pytest
from cadasta.workertoolbox import Ledger
from cadasta.workertoolbox.testing import build_functional_tests, wait_for

def test_an_export(embedded_app, start_worker, start_monitor):
    app = embedded_app(queues=["export"])
    worker = start_worker("exporter")
    start_monitor("exporter")
    sent, failed = app.send_task("export.pdf", (7,)), app.send_task("export.fail")
    with Ledger.from_app(app) as ledger:
        assert wait_for(ledger, sent.id).result == sent.get(timeout=5) == "7.pdf"
        assert wait_for(ledger, failed.id, "FAILURE").result == "ValueError: no paper"
        with pytest.raises(AssertionError, match="no paper"):
            wait_for(ledger, failed.id)
        with pytest.raises(AssertionError, match="waited 0.1 s"):
            wait_for(ledger, "unknown", timeout=0.1)
    assert worker.stop() == 0

def test_a_process_that_does_not_start(start_worker):
    with pytest.raises(AssertionError, match="it ended"):
        start_worker("no_such_module")
"""


def test_the_fixtures(tmp_path: Path) -> None:
    (tmp_path / "exporter.py").write_text(EXPORTER)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_exporter.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp=tmp", "."],
        cwd=tmp_path,
        # A developer's own deployment, which the tests must not touch.
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "CELERY_BROKER_URL": "amqp://guest:guest@127.0.0.1:1//",
            "CELERY_RESULT_BACKEND": "toolbox+postgresql://u@127.0.0.1:1/x",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def run(case: type[unittest.TestCase]) -> unittest.TestResult:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


@pytest.mark.parametrize(
    "deployment", ["rabbitmq", "rabbitmq-quorum", "sqs", "redis", "embedded"], indirect=True
)
def test_the_test_case(deployment: Deployment) -> None:
    result = run(build_functional_tests(deployment.app))
    assert result.testsRun >= 8
    assert [text for _, text in [*result.failures, *result.errors]] == []
    assert result.skipped == []


def test_the_test_case_finds_what_is_wrong(tmp_path: Path) -> None:
    app = Celery("wrong", set_as_current=False)
    app.config_from_object(Config.local(["export"], tmp_path))
    setup_app(app)
    app.tasks["celery.chord_unlock"].max_retries = None
    app.conf.task_default_exchange_type = "direct"
    app.conf.accept_content = ["json", "pickle"]
    result = run(build_functional_tests(app))
    failed = {str(case).split(" ")[0] for case, _ in result.failures}
    assert failed == {"test_chords_are_limited", "test_exchange", "test_settings"}
    producer = run(build_functional_tests(app, is_worker=False))
    assert len(producer.skipped) == 2
    app.close()
