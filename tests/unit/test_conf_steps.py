"""``Config`` step by step: each is a function of what it is given, the environment included."""

from __future__ import annotations

import os
from typing import Any

import pytest

from cadasta.workertoolbox.conf.building import build
from cadasta.workertoolbox.conf.reading import Given, former_names, read, with_queues
from cadasta.workertoolbox.conf.resolving import Resolved, resolve
from cadasta.workertoolbox.errors import ConfigError

AMQP: Any = {"broker_url": "amqp://host//"}


def resolved(environ: dict[str, str] | None = None, **settings: Any) -> Resolved:
    settings.setdefault("QUEUES", ["export"])
    return resolve(read(settings, environ or {}), environ or {})


def test_reading_tells_the_toolboxs_settings_from_celerys() -> None:
    environ = {
        "CELERY_QUEUES": "a,b",
        "CELERY_TASK_TIME_LIMIT": "60",
        "CELERY_DURABLE": "yes",
        "OTHER": "1",
    }
    given = read({"task_time_limit": 30, "MONITOR_BATCH": 5, "MY_OWN": 1}, environ)
    assert given == Given(
        toolbox={"QUEUES": ["a", "b"], "DURABLE": True, "MONITOR_BATCH": 5},
        celery={"task_time_limit": 30, "MY_OWN": 1},
    )


def test_reading_takes_the_prefix_from_its_argument_then_from_its_variable() -> None:
    environ = {"CELERY_ENV_PREFIX": "WT_", "WT_QUEUES": "a", "X_QUEUES": "b", "CELERY_QUEUES": "c"}
    assert read({}, environ).toolbox == {"QUEUES": ["a"]}
    assert read({}, environ, prefix="X_").toolbox == {"QUEUES": ["b"]}
    with pytest.raises(ConfigError, match="or set X_QUEUES=export,mail"):
        resolve(read({}, {}, prefix="X_"), {})


def test_reading_doubts_names_that_nobody_knows() -> None:
    given = read({"task_acks_lates": True, "MONITOR_BACH": 5, "nonsense": 1, "MY_OWN": 1}, {})
    assert given.doubts == (
        "task_acks_lates: did you mean task_acks_late?",
        "MONITOR_BACH: did you mean MONITOR_BATCH?",
        "nonsense is no setting of Celery.",
    )


def test_reading_knows_the_names_before_celery_4() -> None:
    assert former_names()["CELERYD_CONCURRENCY"] == "worker_concurrency"
    assert former_names()["BROKER_URL"] == "broker_url"
    assert former_names()["CELERY_RESULT_BACKEND"] == "result_backend"
    with pytest.raises(ConfigError, match="use worker_concurrency"):
        read({"CELERYD_CONCURRENCY": 1}, {})


def test_queues_and_their_setting_are_one() -> None:
    assert with_queues(None, {"QUEUES": ["a"]}) == {"QUEUES": ["a"]}
    assert with_queues(["a"], {"QUEUES": ["a"]}) == {"QUEUES": ["a"]}
    with pytest.raises(ConfigError, match="both given and differ"):
        with_queues(["a"], {"QUEUES": ["b"]})


def test_resolving_adds_the_defaults_of_the_broker() -> None:
    settings = resolved(**AMQP)
    assert settings.broker.name == "amqp"
    assert settings.celery["broker_transport"] == "toolbox-amqp"
    assert settings.celery["broker_transport_options"]["confirm_publish"] is True
    assert settings.celery["broker_heartbeat"] == 20.0
    assert settings.toolbox["MONITOR_BATCH"] == 500
    assert "task_queues" not in settings.celery
    assert settings.doubts == ()


def test_resolving_reads_the_environment_that_it_is_given_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SENTRY_DSN", "https://k@sentry.invalid/1")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://elsewhere")
    assert resolved(**AMQP).toolbox["SETUP_SENTRY_LOGGING"] is False
    assert "broker_read_url" not in resolved(**AMQP).celery
    environ = {"SENTRY_DSN": "x", "CELERY_BROKER_URL": "redis://other"}
    assert resolved(environ, **AMQP).toolbox["SETUP_SENTRY_LOGGING"] is True
    assert resolved(environ, **AMQP).celery["broker_read_url"] == AMQP["broker_url"]
    region = resolved({"AWS_REGION": "eu-west-1"}, broker_url="sqs://")
    assert region.celery["broker_transport_options"]["region"] == "eu-west-1"


def test_resolving_doubts_what_celery_will_not_heed() -> None:
    environ = {"CELERY_RESULT_BACKEND": "redis://elsewhere"}
    (doubt,) = resolved(environ, **AMQP, result_backend="db+sqlite:///x").doubts
    assert doubt.startswith("the environment variable CELERY_RESULT_BACKEND is set")


def test_a_template_names_settings_of_the_toolbox_alone() -> None:
    url = "db+postgresql://{0.RESULT_DB_USER}@{0.RESULT_DB_HOST}/x"
    settings = resolved(**AMQP, result_backend=url, RESULT_DB_HOST="a b")
    assert settings.celery["result_backend"] == "db+postgresql+psycopg2://worker@a%20b/x"
    with pytest.raises(ConfigError, match="there is no setting 'update'"):
        resolved(**AMQP, result_backend="db+postgresql://{0.update}/x")


def test_building_adds_queues_and_routes_and_nothing_else() -> None:
    settings = resolved(**AMQP)
    built = build(settings)
    assert [queue.name for queue in built["task_queues"]] == ["export", "celery"]
    assert built["task_routes"]("export.pdf", (), {}, {})["routing_key"] == "export"
    before = {**settings.celery, **settings.toolbox}
    assert {name for name in built if name not in before} == {"task_queues", "task_routes"}
    assert "task_queues" not in settings.celery


def test_no_step_touches_what_it_is_given() -> None:
    arguments: dict[str, Any] = {**AMQP, "QUEUES": ["a"], "broker_transport_options": {"x": 1}}
    before = {name: repr(value) for name, value in arguments.items()}
    environ = dict(os.environ)
    build(resolve(read(arguments, environ), environ))
    assert {name: repr(value) for name, value in arguments.items()} == before
    assert environ == dict(os.environ)
