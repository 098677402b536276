"""The second step to a ``Config``: the value of every setting, from what is given and the defaults.

A function of its inputs alone; what it cannot accept it refuses by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from kombu import Queue

from ..brokers import transports
from ..brokers.broker import Broker
from ..brokers.kinds import BROKERS, broker_of, transport_of
from ..brokers.visibility import longest_run
from ..errors import ConfigError
from ..plain.urls import MaskedURL, build_url
from ..routing.names import QUEUE_TYPES
from ..sql.drivers import is_file, with_driver
from . import defaults
from .reading import Given

#: Options that are merged over their defaults; every other value replaces its default.
_MERGED = frozenset({"broker_transport_options", "task_publish_retry_policy"})


#: Where Celery finds the backend of a URL such as ``db+postgresql://``, whoever names it.
BACKENDS = dict.fromkeys(("db", "database"), "cadasta.workertoolbox.results.plain:PlainBackend")


class Resolved(NamedTuple):
    """Every setting that differs from Celery's own default, but for queues and routes.

    Attributes:
        broker: that of the app.
        toolbox: all settings of the toolbox by name.
        celery: Celery's settings by name.
        doubts: what was probably not meant, a sentence each.
        queues: what an app declares so far.
    """

    broker: Broker
    toolbox: Mapping[str, Any]
    celery: Mapping[str, Any]
    doubts: tuple[str, ...] = ()
    queues: tuple[Queue, ...] = ()


def resolve(given: Given, environ: Mapping[str, str]) -> Resolved:
    """Return the value of every setting.

    Args:
        given: what arguments and environment say.
        environ: the environment variables, for those that others than the toolbox read as well.

    Raises:
        ConfigError: a setting cannot work.
    """
    toolbox = _toolbox(given, environ)
    broker, celery = _celery(given, toolbox, environ)
    # Shown by `celery report`.
    ledger_url = _rendered("LEDGER_URL", toolbox["LEDGER_URL"], toolbox)
    toolbox["LEDGER_URL"] = ledger_url and MaskedURL(ledger_url)
    toolbox["MANAGEMENT_URL"] = toolbox["MANAGEMENT_URL"] and MaskedURL(toolbox["MANAGEMENT_URL"])
    other = environ.get("CELERY_BROKER_URL")
    if given.celery.get("broker_url") and other and other != given.celery["broker_url"]:
        # Celery reads this variable itself, over broker_url, but not over these two.
        celery.setdefault("broker_read_url", given.celery["broker_url"])
        celery.setdefault("broker_write_url", given.celery["broker_url"])
    doubts = tuple(_doubts(toolbox, celery, environ))
    return Resolved(broker, toolbox, celery, doubts, given.queues)


def _toolbox(given: Given, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the toolbox's settings, checked, except for the names of the queues."""
    toolbox = {name: default for name, (_, default, _) in defaults.OWN.items()}
    toolbox.update(given.toolbox)
    if toolbox["QUEUES"] is None:
        raise ConfigError(
            "no queues: name every queue that this process consumes from or publishes to, as "
            f'in Config(queues=["export"]), or set {given.prefix}QUEUES=export,mail.'
        )
    if toolbox["QUEUE_TYPE"] not in QUEUE_TYPES:
        raise ConfigError(f"QUEUE_TYPE is {toolbox['QUEUE_TYPE']!r}: use 'classic' or 'quorum'.")
    for name in ("MONITOR_BATCH", "MONITOR_MAX_ARGS_BYTES", "CHORD_UNLOCK_MAX_RETRIES"):
        if not isinstance(toolbox[name], int) or toolbox[name] < 1:
            raise ConfigError(f"{name} is {toolbox[name]!r}: give a whole number above 0.")
    interval = toolbox["MONITOR_INTERVAL"]
    if not isinstance(interval, int | float) or interval <= 0:
        raise ConfigError(f"MONITOR_INTERVAL is {interval!r}: give seconds.")
    timeout = toolbox["DATABASE_TIMEOUT"]
    if not isinstance(timeout, int | float) or (timeout and timeout < 1):
        raise ConfigError(f"DATABASE_TIMEOUT is {timeout!r}: give seconds, 1 or more, or 0.")
    if toolbox["SETUP_SENTRY_LOGGING"] is None:
        toolbox["SETUP_SENTRY_LOGGING"] = bool(environ.get("SENTRY_DSN"))
    return toolbox


def _celery(
    given: Given, toolbox: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[Broker, dict[str, Any]]:
    """Return the broker, and Celery's settings as far as they are no topology."""
    broker_url = _broker_url(given, environ)
    # Celery reads from this URL where it is given, as the worker does.
    read_url = given.celery.get("broker_read_url") or broker_url
    broker = broker_of(read_url, given.celery.get("broker_transport"))
    settings = _default_settings(broker, given, toolbox, environ)
    for name, value in given.celery.items():
        settings[name] = {**settings[name], **value} if name in _MERGED and value else value
    settings["broker_url"] = broker_url
    if not given.celery.get("broker_transport"):
        settings["broker_transport"] = transport_of(broker_url, given.celery)
        if settings["broker_transport"]:
            settings["broker_failover_strategy"] = transports.keeping_transport(
                given.celery.get("broker_failover_strategy")
            )
    if "task_default_routing_key" not in given.celery:
        settings["task_default_routing_key"] = settings["task_default_queue"]
    backend = _with_driver(_rendered("result_backend", settings["result_backend"], toolbox))
    settings["result_backend"] = backend
    # The URL may come from where these settings have no say: CELERY_RESULT_BACKEND, or the
    # app's own backend=.
    settings["override_backends"] = {**BACKENDS, **(settings.get("override_backends") or {})}
    if not str(backend).startswith("toolbox+") and "result_extended" not in given.celery:
        if toolbox["MONITOR_REDACT"] or not toolbox["MONITOR_STORE_ARGS"]:
            # Another result backend would store the arguments beside the result.
            settings["result_extended"] = False
    prefix, _, database = str(backend).partition("+")
    if prefix == "db" and is_file(database):
        # pool processes write results at the same time; SQLite's own patience is 5 seconds
        options = {"pool_pre_ping": True, "connect_args": {"timeout": 30}}
        settings.setdefault("database_engine_options", options)
    return broker, settings


def _broker_url(given: Given, environ: Mapping[str, str]) -> Any:
    """Return the broker that is named, or Amazon SQS where its own settings are there.

    Raises:
        ConfigError: none is named.
    """
    for name in ("broker_url", "broker_write_url", "broker_read_url"):
        if given.celery.get(name):
            return given.celery[name]
    for broker in BROKERS:
        url = broker.unnamed_url(given.toolbox, given.celery, environ)
        if url is not None:
            return url
    raise ConfigError(
        "no broker is named: give broker_url='amqp://user:password@host//' (or 'redis://host/0'), "
        f"or set {given.prefix}BROKER_URL. For Amazon SQS, broker_url='sqs://'; for one machine "
        "without a server, Config.local(queues=[...]). Where the app has its broker already, use "
        "adopt(app, queues=[...]) in place of Config, or Config(..., base=globals()) in a "
        "celeryconfig: they take all settings that are there."
    )


def _default_settings(
    broker: Broker, given: Given, toolbox: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    """Return the defaults of Celery's settings with one broker."""
    table = {**defaults.COMMON, **(defaults.DURABLE if toolbox["DURABLE"] else {})}
    table.update(broker.settings)
    settings = {name: default.value for name, default in table.items()}
    options = defaults.transport_defaults(broker, toolbox, given.celery, environ)
    settings["broker_transport_options"] = options
    retries = {"max_retries": options["max_retries"]}
    settings["task_publish_retry_policy"] = {**settings["task_publish_retry_policy"], **retries}
    settings["result_backend"] = "toolbox+" + build_url(
        "postgresql+psycopg2",
        toolbox["RESULT_DB_USER"],
        toolbox["RESULT_DB_PASS"],
        toolbox["RESULT_DB_HOST"],
        toolbox["RESULT_DB_PORT"],
        toolbox["RESULT_DB_NAME"],
    )
    return settings


def _doubts(
    toolbox: Mapping[str, Any], celery: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[str]:
    timeout = celery["broker_transport_options"].get("visibility_timeout")
    if timeout is not None and timeout < longest_run(toolbox, celery):
        yield (
            f"broker_transport_options: a visibility_timeout of {timeout} seconds is below a "
            "time limit or ETA_HORIZON; the broker will hand such tasks out twice."
        )
    backend = environ.get("CELERY_RESULT_BACKEND")
    if backend and _with_driver(backend) != celery["result_backend"]:
        yield (
            "the environment variable CELERY_RESULT_BACKEND is set, and Celery itself lets it "
            "win, as it is written, over result_backend: unset it, or set it to the full URL."
        )


def _with_driver(backend: Any) -> Any:
    prefix, plus, url = str(backend).partition("+")
    return f"db+{with_driver(url)}" if plus and prefix == "db" else backend


def _rendered(name: str, value: Any, toolbox: Mapping[str, Any]) -> Any:
    """Fill ``{0.RESULT_DB_HOST}`` and its like into ``value``, as parts of a URL."""
    if not isinstance(value, str) or "{" not in value:
        return value
    try:
        return value.format(_Quoted(toolbox))
    except (AttributeError, IndexError, KeyError, ValueError) as exc:
        raise ConfigError(
            f"{name}: the template cannot be rendered ({exc}). Use the form "
            f"'{{0.RESULT_DB_HOST}}', and '{{{{' for a brace."
        ) from None


class _Quoted:
    """The toolbox's settings as they stand in a URL."""

    def __init__(self, toolbox: Mapping[str, Any]) -> None:
        self._toolbox = toolbox

    def __getattr__(self, name: str) -> str:
        try:
            return quote(str(self._toolbox[name]), safe="")
        except KeyError:
            raise AttributeError(f"there is no setting {name!r}") from None
