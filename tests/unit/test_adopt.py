"""``adopt`` and ``Config(base=...)``: an app keeps its settings, and all its tasks are recorded."""

from __future__ import annotations

import pickle
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast

from cadasta.workertoolbox import Config, ConfigError, ConfigWarning, adopt
from cadasta.workertoolbox.conf.user_routes import UserRoutes, routed_queues
from cadasta.workertoolbox.routing.router import Declaration, Router, router_of

AMQP = "amqp://me:pw@host//"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(("CELERY_", "SENTRY_", "AWS_", "WT_")):
            monkeypatch.delenv(name)


def new_app(name: str = "shop", **options: Any) -> Celery:
    options.setdefault("backend", "toolbox+sqlite:///x")
    return Celery(name, set_as_current=False, fixups=[], **options)


def route(app: Any, task: str, **options: Any) -> dict[str, Any]:
    """Where a task of that name goes, as Celery asks at its publish."""
    found: dict[str, Any] = app.amqp.router.route(options, task, (), {})
    return found


def key(app: Any, task: str, **options: Any) -> str:
    """The routing key of a task that is recorded by the exchange's own copy."""
    found = route(app, task, **options)
    assert type(found["declare"]) is Declaration
    assert found["exchange"] == "task_exchange"
    return str(found["routing_key"])


def test_the_broker_of_the_constructor_gets_its_own_defaults() -> None:
    """Before: options of SQS, no confirms, remote control off."""
    app = new_app(broker=AMQP, backend="toolbox+sqlite:///x")
    adopt(app, queues=["export"])
    assert app.conf.broker_url == AMQP
    assert app.conf.broker_transport == "toolbox-amqp"
    options = app.conf.broker_transport_options
    assert options["confirm_publish"] is True
    assert not {"region", "queue_name_prefix"} & options.keys()
    assert app.conf.worker_enable_remote_control is True
    assert app.conf.result_backend == "toolbox+sqlite:///x"
    assert key(app, "export.pdf") == "export"


def test_an_apps_own_settings_win_over_the_toolboxs_defaults() -> None:
    app = new_app(broker=AMQP)
    app.conf.update(task_track_started=False, timezone="Europe/Paris", result_expires=60)
    adopt(app)
    assert app.conf.task_track_started is False
    assert app.conf.timezone == "Europe/Paris"
    assert app.conf.result_expires == 60
    assert app.conf.task_create_missing_queues is False  # ours
    assert app.conf.QUEUES == ["celery"]


@pytest.mark.parametrize("namespace", ["CELERY", "CELERY_", "JOBS"])
def test_settings_under_a_namespace_are_taken(namespace: str) -> None:
    """Before, in Django: broker sqs://, no beat schedule, no timezone, without a word."""
    schedule = {"tick": {"task": "proj.tick", "schedule": 5.0, "options": {"queue": "beats"}}}
    prefix = namespace.rstrip("_")
    settings = SimpleNamespace(
        **{
            f"{prefix}_BROKER_URL": AMQP,
            f"{prefix}_BEAT_SCHEDULE": schedule,
            f"{prefix}_TASK_ROUTES": {"mail.*": {"queue": "mails"}},
            f"{prefix}_MONITOR_BATCH": 7,
            f"{prefix}_OUR_OWN": 5,
            "TIME_ZONE": "Asia/Tokyo",
        }
    )
    app = new_app()
    app.config_from_object(settings, namespace=namespace)
    adopt(app)
    assert app.conf.broker_url == AMQP
    assert app.conf.beat_schedule is schedule
    assert str(app.timezone) == "Asia/Tokyo"
    assert app.conf.MONITOR_BATCH == 7
    assert app.conf.our_own == 5
    assert sorted(app.conf.QUEUES) == ["beats", "celery", "mails"]
    assert key(app, "mail.send") == "mails"


def test_old_names_are_taken_too() -> None:
    app = new_app()
    app.config_from_object(
        {"BROKER_URL": AMQP, "CELERYD_CONCURRENCY": 3, "CELERY_ROUTES": {"a": "qa"}}
    )
    adopt(app)
    assert app.conf.worker_concurrency == 3
    assert key(app, "a") == "qa"


def test_celery_queues_of_a_namespace_may_be_ours_or_celerys_old_name() -> None:
    for queues in (["export"], [Queue("export")]):
        app = new_app()
        app.config_from_object(
            {"CELERY_BROKER_URL": AMQP, "CELERY_QUEUES": queues}, namespace="CELERY"
        )
        adopt(app)
        assert sorted(app.conf.QUEUES) == ["celery", "export"]
        assert key(app, "export.x") == "export"


def test_an_app_is_adopted_when_its_settings_can_be_read(tmp_path: Path, monkeypatch: Any) -> None:
    app = new_app()
    app.config_from_object("settings_to_come", namespace="CELERY")
    adopt(app, queues=["export"])
    assert not app.configured
    (tmp_path / "settings_to_come.py").write_text(f"CELERY_BROKER_URL = {AMQP!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert key(app, "export.x") == "export"
    sys.modules.pop("settings_to_come", None)


def test_it_may_be_called_again() -> None:
    app = new_app(broker=AMQP)
    adopt(app, queues=["a"], MONITOR_BATCH=1)
    adopt(app, queues=["b"])
    assert app.conf.QUEUES == ["a", "b", "celery"]
    adopt(app, queues=["a", "c"], MONITOR_BATCH=2)
    assert app.conf.QUEUES == ["a", "b", "c", "celery"]
    assert app.conf.MONITOR_BATCH == 2
    router = app.conf.task_routes
    assert set(router.queues) == {"a", "b", "c", "celery"}


def test_two_apps_of_a_process_are_apart() -> None:
    one, two = new_app("one", broker=AMQP), new_app("two", broker="redis://host/0")
    adopt(one, queues=["a"])
    adopt(two, queues=["b"])
    assert one.conf.broker_transport == "toolbox-amqp"
    assert two.conf.broker_transport == "toolbox-redis"
    assert set(router_of(one).queues) == {"a", "celery"}
    assert set(router_of(two).queues) == {"b", "celery"}
    plain = new_app("plain", broker=AMQP)
    assert plain.conf.task_routes is None


def test_routes_that_come_later_pick_the_queue_and_recording_goes_on() -> None:
    """Before: the router is replaced; nothing is recorded; only ``check`` tells."""
    app = new_app(broker=AMQP)
    adopt(app, queues=["a", "b"])
    app.conf.task_routes = {"x.*": {"queue": "b", "priority": 3}}
    assert key(app, "x.y") == "b"
    assert route(app, "x.y")["priority"] == 3
    app.conf.update(task_routes={"x.*": "a"})
    assert key(app, "x.y") == "a"
    assert key(app, "b.z") == "b"
    app.conf.task_routes = lambda name, *_, **__: "b" if name == "odd" else None
    assert key(app, "odd") == "b"
    with pytest.raises(ConfigError, match="task_routes sends tasks to the queue 'nowhere'"):
        app.conf.task_routes = {"x.*": "nowhere"}
    assert key(app, "odd") == "b"


def test_routes_beside_config_pick_the_queue_too() -> None:
    app = new_app()
    app.config_from_object(Config(queues=["a", "b"], broker_url=AMQP))

    @app.task(name="x.y")
    def task() -> None: ...

    app.conf.task_routes = {"x.*": "b"}
    app.finalize()
    assert isinstance(app.conf.task_routes, Router)
    assert key(app, "x.y") == "b"
    app.conf.update(task_routes={"x.*": "a"})
    assert key(app, "x.y") == "a"
    with pytest.raises(ConfigError, match="the queue 'nowhere'"):
        app.conf.update(task_routes={"x.*": {"queue": "nowhere"}})


def test_a_program_that_finalizes_no_app_is_guarded_at_its_first_publish(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    app = new_app()
    app.config_from_object(Config.local(["a", "b"], tmp_path))
    app.conf.task_routes = {"x.*": {"queue": "b"}}
    with app:
        app.send_task("x.y")
        assert "Task x.y is published without a record: app 'shop' has routes" in caplog.text
        caplog.clear()
        app.send_task("x.y")
        assert key(app, "x.y") == "b"
        assert not caplog.records


def test_a_broker_of_another_kind_beside_config_is_refused_in_producers_as_well() -> None:
    """Before: the producer says nothing, the worker one line."""
    app = new_app(broker=AMQP)
    app.config_from_object(Config(queues=["a"], broker_url="sqs://"))

    @app.task(name="a.x")
    def task() -> None: ...

    with pytest.raises(ConfigError, match="the app's broker is amqp"):
        app.finalize()
    with pytest.raises(ConfigError, match="the app's broker is amqp"):
        task.delay()


def test_other_settings_that_come_later_hold() -> None:
    app = new_app(broker=AMQP)
    adopt(app, queues=["a"])
    app.conf.task_time_limit = 99
    app.conf.worker_concurrency = 2
    app.conf.update(task_queue_max_priority=10, broker_transport_options={"x": 1})
    assert app.conf.task_time_limit == 99
    assert app.conf.worker_concurrency == 2
    assert app.conf.broker_transport_options["x"] == 1
    assert app.conf.broker_transport_options["confirm_publish"] is True
    arguments = {name: q.queue_arguments for name, q in router_of(app).queues.items()}
    assert arguments == {name: {"x-max-priority": 10} for name in ("a", "celery")}
    app.conf.broker_url = "redis://host/0"
    assert app.conf.broker_transport == "toolbox-redis"


def test_each_declaration_of_a_producer_has_the_priority() -> None:
    """Before: queues without it, on which each worker then dies."""
    app = new_app(broker=AMQP, task_queue_max_priority=10)
    adopt(app, queues=["a"])
    target, monitor = route(app, "a.x")["declare"]
    assert target.queue_arguments == {"x-max-priority": 10}
    assert not monitor.queue_arguments


def test_an_apps_default_exchange_gives_way_and_its_queue_stays_bound() -> None:
    """Before: each delay() fails with 406."""
    app = new_app(broker=AMQP, task_default_exchange="default")
    adopt(app, queues=["a"])
    assert key(app, "a.x") == "a"
    default = router_of(app).queues["celery"]
    assert default.exchange.type == "topic"
    (former,) = default.former
    assert (former.exchange.name, former.exchange.type, former.routing_key) == (
        "default",
        "direct",
        "celery",
    )


def test_queues_keep_their_arguments_and_bindings() -> None:
    own = Queue(
        "video",
        Exchange("media", type="topic"),
        routing_key="media.video.#",
        queue_arguments={"x-max-length": 5},
        message_ttl=3.0,
    )
    app = new_app(broker=AMQP)
    app.conf.task_queues = [own, Broadcast("all"), Queue("plain")]
    app.conf.task_routes = {
        "encode": {"exchange": "media", "routing_key": "media.video.encode"},
        "shout": {"queue": "all"},
        "named": {"queue": "video", "routing_key": "media.video.x"},
    }
    adopt(app)
    assert app.conf.QUEUES == ["video", "plain", "celery"]
    video = router_of(app).queues["video"]
    assert video.queue_arguments == {"x-max-length": 5}
    assert video.message_ttl == 3.0
    assert [(tie.exchange.name, tie.routing_key) for tie in video.former] == [
        ("media", "media.video.#")
    ]
    assert own.exchange.name == "media"  # what the app holds is left as it is
    assert key(app, "encode") == key(app, "named") == "video"
    assert type(route(app, "shout")["declare"]) is Declaration


def test_queues_as_a_mapping_of_options() -> None:
    app = new_app(broker=AMQP)
    app.conf.task_queues = {"mail": {"exchange": "mails", "routing_key": "m"}, "x": {}}
    adopt(app)
    assert set(router_of(app).queues) == {"mail", "x", "celery"}
    (former,) = router_of(app).queues["mail"].former
    assert (former.exchange.name, former.routing_key) == ("mails", "m")


def test_quorum_queues_stay_what_they_are() -> None:
    app = new_app(broker=AMQP, task_default_queue_type="quorum")
    adopt(app, queues=["a"])
    kinds = {
        name: (queue.queue_arguments or {}).get("x-queue-type")
        for name, queue in router_of(app).queues.items()
    }
    assert kinds == {"celery": "quorum", "a": None}  # as Celery would make each
    assert app.conf.QUEUE_TYPE == "quorum"


def test_a_route_to_a_queue_that_is_not_named_is_refused() -> None:
    """Before: Config and ``check`` are silent, delay() raises in production."""
    with pytest.raises(
        ConfigError, match=r"the queue 'mail', which is not among the queues \(a, c"
    ):
        Config(queues=["a"], broker_url=AMQP, task_routes={"m.*": {"queue": "mail"}})
    app = new_app(broker=AMQP)
    app.conf.task_routes = {"m.*": "mail"}
    adopt(app, queues=["a"])
    for _ in range(2):  # also of whoever tries again
        with pytest.raises(ConfigError, match="the queue 'mail'"):
            app.send_task("a.x")


def test_no_broker_named_tells_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: "Unable to locate credentials" of Amazon SQS."""
    with pytest.raises(ConfigError, match="no broker is named: give broker_url=.*BROKER_URL"):
        Config(queues=["a"])
    app = new_app()
    adopt(app, queues=["a"])
    with pytest.raises(ConfigError, match="no broker is named"):
        app.send_task("a.x")
    for name, value in (
        ("CELERY_QUEUE_PREFIX", "p"),
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_REGION", "r"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert Config(queues=["a"]).broker_url == "sqs://"
    assert Config(queues=["a"], QUEUE_PREFIX="p").broker_url == "sqs://"
    region = {"region": "eu-west-1"}
    assert Config(["a"], broker_transport_options=region).broker_url == "sqs://"
    assert Config(queues=["a"], broker_url="sqs://").broker_transport == "toolbox-sqs"


@pytest.mark.parametrize(
    "variable", ["CELERY_RESULT_BACKEND", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"]
)
def test_a_local_config_is_local_or_refuses(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: embedded broker, results in production's database."""
    monkeypatch.setenv("CELERY_LEDGER_URL", "postgresql://production/x")
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://production")
    config = Config.local(queues=["a"], directory=tmp_path)
    assert config.LEDGER_URL is None
    app = new_app()
    app.config_from_object(config)
    assert app.conf.broker_write_url == config.broker_url
    monkeypatch.setenv(variable, "amqp://production")
    with pytest.raises(ConfigError, match=f"environment variable {variable} is set"):
        Config.local(queues=["a"], directory=tmp_path)


def test_results_on_postgresql_have_the_driver_that_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before: SQLAlchemy 2.1 wants psycopg 3; every result is lost, and ``check`` says ok."""
    url = "db+postgresql://me@host/x"
    adopted = new_app(broker=AMQP, backend=url)
    adopt(adopted)
    configured = new_app(backend=url)
    configured.config_from_object(Config(queues=["a"], broker_url=AMQP))
    monkeypatch.setenv("CELERY_RESULT_BACKEND", url)
    from_environment = new_app()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_environment.config_from_object(Config(queues=["a"], broker_url=AMQP))
    for app in (adopted, configured, from_environment):
        app.conf.finalize()  # as each publish does before
        assert app.backend.url == "postgresql+psycopg2://me@host/x"


def test_the_environment_wins_where_celery_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://host/0")
    app = new_app(broker=AMQP)
    adopt(app, queues=["a"])
    assert app.conf.broker_transport == "toolbox-redis"
    assert app.connection_for_write().transport_cls == "toolbox-redis"


def test_an_apps_own_setting_wins_over_the_environment_with_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CELERY_TASK_TIME_LIMIT", "5")
    app = new_app(broker=AMQP)
    app.conf.task_time_limit = 60
    adopt(app)
    with pytest.warns(ConfigWarning, match="CELERY_TASK_TIME_LIMIT is set, but the app has"):
        assert app.conf.task_time_limit == 60
    monkeypatch.setenv("CELERY_TASK_TIME_LIMIT", "60")
    same = new_app(broker=AMQP)
    same.conf.task_time_limit = 60
    adopt(same)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same.conf.task_time_limit == 60


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task_default_exchange_type": "fanout"}, "task_default_exchange_type is 'fanout'"),
        ({"task_protocol": 1}, "task_protocol is 1"),
        ({"task_default_queue_type": "quorum", "task_queue_max_priority": 5}, "quorum queue"),
        ({"task_queues": [Queue("platform.fifo")]}, "monitor queue 'platform.fifo'"),
    ],
)
def test_what_cannot_go_together_is_refused_by_name(settings: dict[str, Any], words: str) -> None:
    app = new_app(broker=AMQP)
    app.conf.update(settings)
    adopt(app)
    with pytest.raises(ConfigError, match=words):
        app.conf.finalize()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task_serializer": "pickle"}, "task_serializer is 'pickle'"),
        ({"result_backend": "rpc://"}, "result_backend is a 'rpc' one"),
        ({"result_backend": None}, "no result_backend is named"),
    ],
)
def test_what_is_doubtful_warns_once(settings: dict[str, Any], words: str) -> None:
    app = new_app(broker=AMQP)
    app.conf.update(settings)
    adopt(app)
    with pytest.warns(ConfigWarning, match=words):
        app.conf.finalize()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        app.conf.task_time_limit = 5


def test_a_slip_in_a_namespace_is_told() -> None:
    app = new_app()
    settings = {"CELERY_BROKER_URL": AMQP, "CELERY_TASK_TIME_LIMITS": 5, "CELERY_OUR_OWN": 1}
    app.config_from_object(settings, namespace="CELERY")
    adopt(app)
    with pytest.warns(ConfigWarning, match="TIME_LIMITS: did you mean CELERY_TASK_TIME_LIMIT"):
        app.conf.finalize()


def test_a_report_shows_no_secret() -> None:
    app = new_app(broker=AMQP, backend="db+postgresql://me:hunter1@host/x")
    adopt(app, LEDGER_URL="postgresql://me:hunter2@host/x", RESULT_DB_PASS="hunter3")
    report = app.conf.humanize()
    assert "LEDGER_URL" in report
    assert "hunter" not in report
    assert "pw@" not in report


def test_settings_that_are_read_again_are_adopted_again() -> None:
    app = new_app()
    app.config_from_object({"broker_url": AMQP})
    adopt(app, queues=["a"])
    app.conf.finalize()
    app.config_from_object({"broker_url": "redis://host/0", "task_time_limit": 3})
    assert app.conf.broker_transport == "toolbox-redis"
    assert app.conf.task_time_limit == 3
    assert key(app, "a.x") == "a"


def test_an_app_that_is_pickled_stays_adopted() -> None:
    app = new_app(broker=AMQP)
    adopt(app, queues=["a"])
    app.conf.finalize()
    twin = pickle.loads(pickle.dumps(app))
    assert twin.conf.broker_transport == "toolbox-amqp"
    assert key(twin, "a.x") == "a"


def test_config_and_adopt_are_two_ways() -> None:
    app = new_app()
    app.config_from_object(Config(queues=["a"], broker_url=AMQP))
    adopt(app)  # nothing to add
    assert key(app, "a.x") == "a"
    with pytest.raises(ConfigError, match="is configured by Config"):
        adopt(app, queues=["b"])


def test_queues_is_no_string() -> None:
    with pytest.raises(ConfigError, match="must be a list of queue names, not 'export'"):
        adopt(new_app(broker=AMQP), queues="export")


# -- Config(base=...) -----------------------------------------------------------------------------


def test_config_takes_all_of_a_celeryconfig() -> None:
    """Before: the module's other settings are gone."""
    module = ModuleType("celeryconfig")
    vars(module).update(
        re=re,
        Queue=Queue,
        broker_url=AMQP,
        timezone="Asia/Tokyo",
        task_annotations={"a": {"rate_limit": "1/s"}},
        task_queues=[Queue("mail", Exchange("mail", type="direct"), routing_key="mail")],
        task_routes={"mail.*": {"queue": "mail", "exchange": "mail"}},
        our_own={"x": 1},
        result_backend="toolbox+sqlite:///x",
    )
    config = Config(base=module)
    assert config.timezone == "Asia/Tokyo"
    assert config.task_annotations == {"a": {"rate_limit": "1/s"}}
    assert config.our_own == {"x": 1}
    assert config.QUEUES == ["mail", "celery"]
    assert "re" not in config
    assert "Queue" not in config
    app = new_app()
    app.config_from_object(config)
    assert key(app, "mail.send") == "mail"
    twin = pickle.loads(pickle.dumps(config))
    assert twin.task_routes("mail.send", (), {}, {})["routing_key"] == "mail"


def test_config_takes_a_base_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_settings.py").write_text(
        f"CELERY_BROKER_URL = {AMQP!r}\nCELERY_OUR_OWN = 1\nOTHER = 2\n"
        "CELERY_RESULT_BACKEND = 'toolbox+sqlite:///x'\n\n\n"
        f"class Production:\n    broker_url = {AMQP!r}\n    task_time_limit = 5\n"
        "    result_backend = 'toolbox+sqlite:///x'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = Config(["a"], base="shop_settings", namespace="CELERY", task_time_limit=9)
    assert (config.broker_url, config.our_own, config.task_time_limit) == (AMQP, 1, 9)
    assert "OTHER" not in config
    assert Config(["a"], base="shop_settings:Production").task_time_limit == 5
    for base in ("shop_setings", "shop_settings:Nothing"):
        with pytest.raises(ConfigError, match=f"base='{base}' cannot be read"):
            Config(["a"], base=base)
    sys.modules.pop("shop_settings", None)


# -- routes ----------------------------------------------------------------------------------------


def test_routed_queues_are_those_of_every_form_of_routes() -> None:
    routes = [
        {"a": "qa", "b": {"queue": "qb"}, "c": {"exchange": "x"}},
        [("d.*", {"queue": Queue("qd")}), (re.compile("e"), "qe")],
        lambda *_, **__: "unknown",
        "proj.routes.route",
    ]
    assert list(routed_queues(routes)) == ["qa", "qb", "qd", "qe"]
    assert list(routed_queues(None)) == []


@pytest.mark.parametrize(
    ("pattern", "routing_key", "fits"),
    [
        ("media.#", "media", True),
        ("media.#", "media.a.b", True),
        ("media.*", "media.a", True),
        ("media.*", "media.a.b", False),
        ("#", "anything.at.all", True),
        ("media", "medias", False),
    ],
)
def test_a_route_by_address_finds_the_queue(pattern: str, routing_key: str, fits: bool) -> None:
    exchange = Exchange("media", type="topic")
    queue = Queue("q", exchange, routing_key=pattern)
    routes = UserRoutes(
        {"t": {"exchange": "media", "routing_key": routing_key}}, (queue,), exchange, "celery"
    )
    answer = routes("t", (), {}, {})
    assert answer is not None
    assert (answer.get("queue") == "q") is fits
    assert ("exchange" in answer) is not fits
