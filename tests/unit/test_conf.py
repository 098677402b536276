"""``Config``: precedence, validation, defaults, and what people see of it."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
from celery import Celery
from kombu import Queue

from cadasta.workertoolbox.brokers.embedded.file import path_of
from cadasta.workertoolbox.conf import Config, ConfigWarning
from cadasta.workertoolbox.errors import ConfigError
from cadasta.workertoolbox.routing.router import Router


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(("CELERY_", "SENTRY_", "AWS_", "WT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "test")  # where no broker is named, Amazon SQS is meant


def names(config: Config) -> list[str]:
    return [queue.name for queue in config.task_queues]


def test_the_queues_are_kept_and_the_default_queue_is_added() -> None:
    config = Config(queues=["export", "msg"], broker_url="amqp://")
    assert config.QUEUES == ["export", "msg"]
    assert names(config) == ["export", "msg", "celery"]
    assert config.PLATFORM_QUEUE_NAME == "platform.fifo"


def test_the_monitor_queue_is_not_consumed_even_if_it_is_named() -> None:
    config = Config(queues=["export", "platform.fifo"], broker_url="amqp://")
    assert names(config) == ["export", "celery"]


def quorum_queue(**options: Any) -> Queue:
    return Queue("export", queue_arguments={"x-queue-type": "quorum"}, **options)


@pytest.mark.parametrize(
    ("queues", "words"),
    [
        (None, "no queues"),
        ([], "queues is empty"),
        ("export", "must be a list"),
        (7, "must be a list"),
        ([7], "list of strings"),
        ([""], "empty name"),
        ([" "], "empty name"),
        (["a*"], "wildcards"),
        (["a.#"], "wildcards"),
        (["x" * 200], "199 bytes"),
        (["celery_delayed_3"], "belong to Celery"),
    ],
)
def test_queues_that_cannot_work_are_refused(queues: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Config(queues=queues, broker_url="amqp://")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"QUEUE_TYPE": "quorum", "task_queue_max_priority": 10}, "no task_queue_max_priority"),
        ({"task_default_queue_type": "quorum"}, "set QUEUE_TYPE='quorum'"),
        ({"task_queues": [quorum_queue(max_priority=5)]}, "no task_queue_max_priority"),
        ({"task_queues": [quorum_queue(durable=False)]}, "no durable=False"),
        ({"task_queues": [quorum_queue(exclusive=True)]}, "no exclusive=True"),
        ({"task_queues": [quorum_queue(auto_delete=True)]}, "no auto_delete=True"),
    ],
)
def test_queues_that_rabbitmq_would_refuse_are_refused(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Config(queues=["export"], broker_url="amqp://", **settings)


def test_a_highest_priority_is_an_argument_of_each_queue() -> None:
    own = Queue("own", queue_arguments={"x-max-priority": 3})
    config = Config(
        queues=["export"],
        broker_url="amqp://",
        task_queue_max_priority=10,
        task_queues=[Queue("export"), own],
    )
    found = {queue.name: queue.queue_arguments for queue in config.task_queues}
    assert found == {"export": {"x-max-priority": 10}, "own": {"x-max-priority": 3}}


def test_sqs_refuses_names_that_are_too_long_or_become_one() -> None:
    with pytest.raises(ConfigError, match="takes 80 characters"):
        Config(queues=["x" * 77])
    Config(queues=["x" * 76])
    Config(queues=["x" * 80], QUEUE_PREFIX="")
    with pytest.raises(ConfigError, match="are both 'dev-a-b' on SQS"):
        Config(queues=["a.b", "a-b"])
    Config(queues=["a.b", "a-b"], broker_url="amqp://")


def test_quorum_queues_refuse_a_dotted_suffix() -> None:
    with pytest.raises(ConfigError, match="would run twice"):
        Config(queues=["sync", "data.sync"], broker_url="amqp://", QUEUE_TYPE="quorum")
    Config(queues=["sync", "data.sync"], broker_url="amqp://")


def test_quorum_queues_are_declared_as_such_the_monitors_too() -> None:
    config = Config(queues=["export"], broker_url="amqp://", QUEUE_TYPE="quorum")
    assert {q.queue_arguments["x-queue-type"] for q in config.task_queues} == {"quorum"}
    monitor = config.task_routes.monitor
    assert monitor.queue_arguments["x-queue-type"] == "quorum"
    assert monitor.queue_arguments["x-delivery-limit"] > 10**6
    with pytest.raises(ConfigError, match="QUEUE_TYPE"):
        Config(queues=["export"], QUEUE_TYPE="fast")


def test_an_argument_wins_over_the_environment_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CELERY_WORKER_PREFETCH_MULTIPLIER", "7")
    monkeypatch.setenv("CELERY_TASK_TRACK_STARTED", "no")
    monkeypatch.setenv("CELERY_QUEUES", "a, b.c")
    monkeypatch.setenv("CELERY_LEDGER_URL", "sqlite:///other.sqlite3")
    config = Config(broker_url="amqp://", worker_prefetch_multiplier=3)
    assert config.worker_prefetch_multiplier == 3
    assert config.task_track_started is False
    assert config.QUEUES == ["a", "b.c"]
    assert config.LEDGER_URL == "sqlite:///other.sqlite3"
    assert config.task_serializer == "json"


def test_the_prefix_of_the_environment_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WT_QUEUES", '["a"]')
    assert Config(ENV_PREFIX="WT_").QUEUES == ["a"]
    monkeypatch.setenv("CELERY_ENV_PREFIX", "WT_")
    assert Config().QUEUES == ["a"]


@pytest.mark.parametrize(
    ("variable", "value", "kind"),
    [
        ("CELERY_TASK_ACKS_LATE", "perhaps", "truth value"),
        ("CELERY_WORKER_PREFETCH_MULTIPLIER", "many", "whole number"),
        ("CELERY_TASK_TIME_LIMIT", "soon", "number"),
        ("CELERY_BROKER_TRANSPORT_OPTIONS", "{'a': 1}", "JSON object"),
        ("CELERY_BROKER_TRANSPORT_OPTIONS", "[1]", "JSON object"),
        ("CELERY_RESULT_DB_PORT", "hunter2", "whole number"),
    ],
)
def test_a_variable_that_does_not_parse_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, kind: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=rf"{variable}.*{kind}") as caught:
        Config(queues=["a"])
    assert value not in str(caught.value)


def test_typed_variables_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_TRANSPORT_OPTIONS", '{"wait_time_seconds": 5}')
    monkeypatch.setenv("CELERY_ACCEPT_CONTENT", "json,msgpack")
    monkeypatch.setenv("CELERY_IMPORTS", '["a", "b"]')
    monkeypatch.setenv("CELERY_RESULT_EXPIRES", "60")
    monkeypatch.setenv("CELERY_TASK_TIME_LIMIT", "none")
    monkeypatch.setenv("CELERY_DURABLE", "1")
    config = Config(queues=["a"])
    assert config.broker_transport_options["wait_time_seconds"] == 5
    assert config.broker_transport_options["queue_name_prefix"] == "dev-"
    assert config.accept_content == ["json", "msgpack"]
    assert config.imports == ("a", "b")
    assert config.result_expires == 60.0
    assert config.task_time_limit is None
    assert config.task_acks_late is True


def test_an_unknown_name_is_kept_and_warned_about() -> None:
    with pytest.warns(ConfigWarning, match="task_acks_lates: did you mean task_acks_late"):
        config = Config(queues=["a"], task_acks_lates=True)
    assert config.task_acks_lates is True
    with pytest.warns(ConfigWarning, match="MONITOR_BACH: did you mean MONITOR_BATCH"):
        Config(queues=["a"], MONITOR_BACH=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Config(queues=["a"], MY_APPS_OWN=5).MY_APPS_OWN == 5


def test_celerys_old_names_are_refused_with_the_new_one() -> None:
    with pytest.raises(ConfigError, match="use broker_url"):
        Config(queues=["a"], BROKER_URL="amqp://")


def test_the_app_reads_all_of_it() -> None:
    app = Celery("reads", set_as_current=False)
    app.config_from_object(Config(queues=["export"], broker_url="amqp://"))
    assert app.conf.QUEUES == ["export"]
    assert app.conf.CHORD_UNLOCK_MAX_RETRIES == 21_600
    assert app.conf.task_default_exchange == "task_exchange"
    assert app.conf.task_create_missing_queues is False
    assert app.amqp.queues["export"].exchange.type == "topic"
    assert "platform.fifo" not in app.amqp.queues


def test_amazon_sqs_is_the_default() -> None:
    config = Config(queues=["export"])
    assert config.broker_url == "sqs://"
    assert config.broker_transport_options == {
        "max_retries": 3,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 1,
        "region": "us-west-2",
        "queue_name_prefix": "dev-",
        "wait_time_seconds": 20,
        "visibility_timeout": 3600,
    }
    assert config.worker_enable_remote_control is False
    assert config.task_routes.message_groups is True


def test_the_region_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert Config(queues=["a"]).broker_transport_options["region"] == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert Config(queues=["a"]).broker_transport_options["region"] == "eu-north-1"


def test_the_visibility_timeout_is_above_time_limits_and_eta() -> None:
    def timeout(**settings: Any) -> Any:
        return Config(queues=["a"], **settings).broker_transport_options["visibility_timeout"]

    assert timeout(task_time_limit=7200) == 7260
    assert timeout(ETA_HORIZON=10_000) == 10_060
    assert timeout(broker_url="redis://", task_soft_time_limit=4000) == 4060
    with pytest.raises(ConfigError, match="43200 seconds at most"):
        timeout(ETA_HORIZON=86_400)
    with pytest.warns(ConfigWarning, match="below a time limit"):
        timeout(task_time_limit=500, broker_transport_options={"visibility_timeout": 30})


def test_predefined_sqs_queues_have_to_be_complete() -> None:
    url = {"url": "https://sqs.us-west-2.amazonaws.com/1/x"}
    with pytest.raises(ConfigError, match=r"lacks celery, platform\.fifo"):
        Config(queues=["a"], broker_transport_options={"predefined_queues": {"a": url}})
    complete = {"a": url, "celery": url, "platform.fifo": url}
    config = Config(queues=["a"], broker_transport_options={"predefined_queues": complete})
    assert "queue_name_prefix" not in config.broker_transport_options
    with pytest.raises(ConfigError, match="queue_name_prefix"):
        Config(
            queues=["a"],
            broker_transport_options={"predefined_queues": complete, "queue_name_prefix": "x"},
        )


def test_rabbitmq_confirms_each_publish() -> None:
    options = Config(queues=["a"], broker_url="amqp://").broker_transport_options
    assert options["confirm_publish"] is True
    assert options["max_retries"] == 3
    assert "visibility_timeout" not in options


def test_transport_options_are_merged_over_the_defaults() -> None:
    options = Config(
        queues=["a"], broker_url="amqp://", broker_transport_options={"confirm_publish": False}
    ).broker_transport_options
    assert options["confirm_publish"] is False
    assert options["max_retries"] == 3


def test_durable_delivers_again() -> None:
    plain = Config(queues=["a"])
    assert "task_acks_late" not in plain
    durable = Config(queues=["a"], DURABLE=True)
    assert durable.task_acks_late is True
    assert durable.task_reject_on_worker_lost is True
    assert durable.worker_prefetch_multiplier == 1
    assert Config(queues=["a"], DURABLE=True, task_acks_late=False).task_acks_late is False


def test_the_result_backend_quotes_every_part() -> None:
    from sqlalchemy.engine import make_url

    config = Config(queues=["a"], RESULT_DB_PASS="p@:/%", RESULT_DB_HOST="db", RESULT_DB_PORT=5433)
    url = make_url(config.result_backend.removeprefix("toolbox+"))
    assert (url.username, url.password, url.host, url.port, url.database) == (
        "worker",
        "p@:/%",
        "db",
        5433,
        "cadasta",
    )


def test_the_result_backend_may_be_a_template() -> None:
    template = "db+postgresql://{0.RESULT_DB_USER}:{0.RESULT_DB_PASS}@{0.RESULT_DB_HOST}/x"
    config = Config(queues=["a"], result_backend=template, RESULT_DB_PASS="a@b")
    assert config.result_backend == "db+postgresql+psycopg2://worker:a%40b@localhost/x"
    assert Config(queues=["a"], LEDGER_URL="sqlite:///{0.QUEUE_PREFIX}.db").LEDGER_URL == (
        "sqlite:///dev.db"
    )
    with pytest.raises(ConfigError, match="result_backend: the template cannot be rendered"):
        Config(queues=["a"], result_backend="db+postgresql://{0.NO_SUCH}/x")
    with pytest.raises(ConfigError, match="cannot be rendered"):
        Config(queues=["a"], result_backend="db+postgresql://{user}/x")


def test_repr_shows_each_celery_setting_and_no_secret() -> None:
    config = Config(
        queues=["a"],
        broker_url="amqp://me:s3cret@host:5672/v",
        RESULT_DB_PASS="hunter2",
        broker_transport_options={"password": "hunter3", "login": "b://u:hunter4@h"},
        broker_password="hunter5",
        security_key_password=b"hunter6",
    )
    shown = repr(config)
    lines = shown.splitlines()[1:-1]
    assert len(lines) == len([name for name in config if name.islower()])
    assert lines == sorted(lines)
    for secret in ("s3cret", "hunter"):
        assert secret not in shown
    assert "amqp://me:***@host:5672/v" in shown
    assert config.to_dict()["broker_url"] == "amqp://me:s3cret@host:5672/v"
    assert config.to_dict()["RESULT_DB_PASS"] == "hunter2"


def test_what_is_not_to_be_stored_is_not_stored_with_the_results_either() -> None:
    assert Config(queues=["a"]).result_extended is True
    assert Config(queues=["a"], MONITOR_REDACT=["password"]).result_extended is True
    other: dict[str, Any] = {"queues": ["a"], "result_backend": "db+sqlite:///x.db"}
    assert Config(**other).result_extended is True
    assert Config(**other, MONITOR_REDACT=["password"]).result_extended is False
    assert Config(**other, MONITOR_STORE_ARGS=False).result_extended is False
    assert Config(**other, MONITOR_REDACT=["p"], result_extended=True).result_extended is True


def test_celerys_report_shows_no_secret() -> None:
    app = Celery("report", set_as_current=False)
    app.config_from_object(
        Config(
            queues=["a"],
            broker_url="amqp://me:hunter1@host//",
            RESULT_DB_PASS="hunter2",
            LEDGER_URL="postgresql://me:hunter3@host/ledger",
            MANAGEMENT_URL="http://me:hunter4@host:15672",
        )
    )
    assert app.conf.LEDGER_URL == "postgresql://me:hunter3@host/ledger"
    assert "hunter" not in app.conf.humanize()
    assert "LEDGER_URL: 'postgresql://me:***@host/ledger'" in app.conf.humanize()


def test_another_default_queue_has_its_own_routing_key() -> None:
    config = Config(queues=["a"], broker_url="amqp://", task_default_queue="main")
    assert config.task_default_routing_key == "main"
    assert config.task_routes("unlisted", (), {}, {})["routing_key"] == "main"


def test_it_can_be_pickled_and_copied() -> None:
    config = Config(queues=["export"], broker_url="amqp://", DURABLE=True)
    for twin in (pickle.loads(pickle.dumps(config)), copy.copy(config), copy.deepcopy(config)):
        assert type(twin) is Config
        assert repr(twin) == repr(config)
        assert isinstance(twin.task_routes, Router)
        assert twin.task_routes("export.x", (), {}, {})["routing_key"] == "export"
        twin.broker_url = "redis://"
    assert config.broker_url == "amqp://"


def test_local_needs_no_server(tmp_path: Any) -> None:
    config = Config.local(["export"], directory=tmp_path / "box")
    assert config.broker_url == f"embedded:///{tmp_path}/box/broker.sqlite3"
    assert config.result_backend == f"toolbox+sqlite:///{tmp_path}/box/ledger.sqlite3"
    assert not (tmp_path / "box").exists()
    odd = Config.local(["export"], directory=tmp_path / "100% + more; or less")
    assert path_of(odd.broker_url) == str(tmp_path / "100% + more; or less" / "broker.sqlite3")
    assert Config.local(["export"], broker_url="amqp://").broker_url == "amqp://"


def test_task_queues_may_not_hold_the_monitor_queue() -> None:
    monitor = Config(queues=["a"], broker_url="amqp://").task_routes.monitor
    with pytest.raises(ConfigError, match="run each task again"):
        Config(queues=["a"], broker_url="amqp://", task_queues=[monitor])


def test_an_argument_wins_where_celery_reads_the_environment_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://elsewhere")
    app = Celery("wins", set_as_current=False)
    app.config_from_object(Config(queues=["a"], broker_url="amqp://here"))
    assert app.connection_for_write().as_uri().startswith("amqp://guest:**@here")
    assert app.connection_for_read().as_uri().startswith("amqp://guest:**@here")
    assert Config(queues=["a"]).broker_url == "redis://elsewhere"
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://elsewhere")
    with pytest.warns(ConfigWarning, match="CELERY_RESULT_BACKEND"):
        Config(queues=["a"], result_backend="db+sqlite:///x")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("MONITOR_BATCH", 0),
        ("MONITOR_BATCH", "many"),
        ("MONITOR_INTERVAL", 0),
        ("CHORD_UNLOCK_MAX_RETRIES", -1),
        ("MONITOR_MAX_ARGS_BYTES", 1.5),
    ],
)
def test_numbers_of_the_toolbox_are_checked(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=setting):
        Config(queues=["a"], **{setting: value})


def test_sentry_follows_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Config(queues=["a"]).SETUP_SENTRY_LOGGING is False
    monkeypatch.setenv("SENTRY_DSN", "https://k@sentry.invalid/1")
    assert Config(queues=["a"]).SETUP_SENTRY_LOGGING is True
    assert Config(queues=["a"], SETUP_SENTRY_LOGGING=False).SETUP_SENTRY_LOGGING is False
