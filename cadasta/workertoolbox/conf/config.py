"""``Config``: the settings of Celery, from arguments, environment and defaults."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from celery import signals
from celery.app.defaults import _OPTIONS as CELERY_OPTIONS
from celery.app.defaults import _TO_NEW_KEY as OLD_NAMES
from kombu import Exchange

from ..brokers import transports
from ..brokers.kinds import broker_kind, transport_of
from ..brokers.visibility import longest_run
from ..errors import ConfigError
from ..plain.masking import masked
from ..plain.urls import MaskedURL, build_url
from ..publishing import signals as publishing
from ..publishing.forks import survive_forks
from ..routing.names import DEFAULT_QUEUE, QUEUE_TYPES, sqs_name, validate_queues
from ..routing.queues import monitor_queue, require_possible_queues, set_max_priority, work_queue
from ..routing.router import Router
from . import defaults, environment


class ConfigWarning(UserWarning):
    """A setting that is kept, but is probably not what was meant."""


class Config(dict[str, Any]):
    """The settings of a Celery app whose every task is recorded.

    Use it as ``app.config_from_object(Config(queues=["export"]))`` or as a module-level object of
    a celeryconfig. A setting comes from the keyword argument, else from the environment variable
    ``CELERY_`` + its name in upper case, else from the defaults in :mod:`.defaults`, each of which
    tells its reason there. Lower-case names are Celery's settings, upper-case names the toolbox's.
    It is a dictionary, which Celery reads fastest, whose values are attributes as well.

    Args:
        queues: the names of all queues that this process consumes from or publishes to. ``celery``
            and the monitor queue are added. Stored as ``QUEUES``.
        ENV_PREFIX: the prefix of environment variables; default: the variable
            ``CELERY_ENV_PREFIX``, else ``CELERY_``.
        **settings: any setting of Celery, and those of :data:`.defaults.OWN`. Options given in
            ``broker_transport_options`` and ``task_publish_retry_policy`` are merged over the
            defaults; every other value replaces its default.

    Raises:
        ConfigError: a setting cannot work; names it and the remedy.

    Warns:
        ConfigWarning: the name is no setting of Celery, or Celery will not heed the setting.
    """

    def __init__(
        self, queues: Iterable[str] | None = None, *, ENV_PREFIX: str | None = None, **settings: Any
    ) -> None:
        if ENV_PREFIX is None:
            ENV_PREFIX = os.environ.get("CELERY_ENV_PREFIX", "CELERY_")
        if queues is not None:
            if settings.get("QUEUES", queues) != queues:
                raise ConfigError("queues and QUEUES are both given and differ: drop one.")
            settings["QUEUES"] = queues
        _check_names(settings)
        own = self._own_settings(settings, ENV_PREFIX)
        given = {name: value for name, value in settings.items() if name not in own}
        kinds = {name: str(option.type) for name, option in CELERY_OPTIONS.items()}
        found = {**environment.read(os.environ, ENV_PREFIX, kinds, given), **given}
        super().__init__(own)  # templates refer to these
        self.update({**self._celery_settings(own, found), **own})
        self._yield_to_arguments(found)
        self._register()

    @classmethod
    def local(
        cls,
        queues: Iterable[str] | None = None,
        directory: str | os.PathLike[str] = ".workertoolbox",
        **settings: Any,
    ) -> Config:
        """Settings for one machine without any server.

        Broker and ledger are two SQLite files in ``directory``, which is made at first use.

        Args:
            queues: as for :class:`Config`.
            directory: the folder, absolute or relative to the current one.
            **settings: as for :class:`Config`.
        """
        folder = os.path.abspath(os.path.expanduser(os.fspath(directory)))
        settings.setdefault("broker_url", f"embedded:///{quote(folder)}/broker.sqlite3")
        settings.setdefault("result_backend", f"toolbox+sqlite:///{folder}/ledger.sqlite3")
        return cls(queues, **settings)

    @staticmethod
    def _own_settings(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        """The toolbox's settings, checked, except for the names of the queues."""
        kinds = {name: kind for name, (kind, _, _) in defaults.OWN.items()}
        own = {name: default for name, (_, default, _) in defaults.OWN.items()}
        own.update(environment.read(os.environ, prefix, kinds, settings))
        own.update((name, settings[name]) for name in own if name in settings)
        if own["QUEUES"] is None:
            raise ConfigError(
                "no queues: name every queue that this process consumes from or publishes to, as "
                f'in Config(queues=["export"]), or set {prefix}QUEUES=export,mail.'
            )
        if own["QUEUE_TYPE"] not in QUEUE_TYPES:
            raise ConfigError(f"QUEUE_TYPE is {own['QUEUE_TYPE']!r}: use 'classic' or 'quorum'.")
        for name in ("MONITOR_BATCH", "MONITOR_MAX_ARGS_BYTES", "CHORD_UNLOCK_MAX_RETRIES"):
            if not isinstance(own[name], int) or own[name] < 1:
                raise ConfigError(f"{name} is {own[name]!r}: give a whole number above 0.")
        if not isinstance(own["MONITOR_INTERVAL"], int | float) or own["MONITOR_INTERVAL"] <= 0:
            raise ConfigError(f"MONITOR_INTERVAL is {own['MONITOR_INTERVAL']!r}: give seconds.")
        timeout = own["DATABASE_TIMEOUT"]
        if not isinstance(timeout, int | float) or (timeout and timeout < 1):
            raise ConfigError(f"DATABASE_TIMEOUT is {timeout!r}: give seconds, 1 or more, or 0.")
        if own["SETUP_SENTRY_LOGGING"] is None:
            own["SETUP_SENTRY_LOGGING"] = bool(os.environ.get("SENTRY_DSN"))
        return own

    def _celery_settings(self, own: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
        """All of Celery's settings that differ from its own defaults."""
        broker_url = found.get("broker_url") or defaults.BROKER_URL
        kind = broker_kind(broker_url, found.get("broker_transport"))
        table = {**defaults.COMMON, **(defaults.DURABLE if own["DURABLE"] else {})}
        table.update({"sqs": defaults.SQS_SETTINGS, "amqp": defaults.AMQP_SETTINGS}.get(kind, {}))
        settings = {name: default.value for name, default in table.items()}
        options = defaults.transport_defaults(kind, own, found, os.environ)
        settings["broker_transport_options"] = options
        retries = {"max_retries": options["max_retries"]}
        settings["task_publish_retry_policy"] = {**settings["task_publish_retry_policy"], **retries}
        settings["result_backend"] = "toolbox+" + build_url(
            "postgresql+psycopg2",
            own["RESULT_DB_USER"],
            own["RESULT_DB_PASS"],
            own["RESULT_DB_HOST"],
            own["RESULT_DB_PORT"],
            own["RESULT_DB_NAME"],
        )
        for name, value in found.items():
            merged = name in {"broker_transport_options", "task_publish_retry_policy"}
            settings[name] = {**settings[name], **value} if merged and value else value
        settings["broker_url"] = broker_url
        if not found.get("broker_transport"):
            settings["broker_transport"] = transport_of(broker_url, found)
            if settings["broker_transport"]:
                settings["broker_failover_strategy"] = transports.keeping_transport(
                    found.get("broker_failover_strategy")
                )
        settings["result_backend"] = self._rendered("result_backend", settings["result_backend"])
        ledger_url = self._rendered("LEDGER_URL", own["LEDGER_URL"])
        own["LEDGER_URL"] = ledger_url and MaskedURL(ledger_url)
        own["MANAGEMENT_URL"] = own["MANAGEMENT_URL"] and MaskedURL(own["MANAGEMENT_URL"])
        if "task_default_routing_key" not in found:
            settings["task_default_routing_key"] = settings["task_default_queue"]
        backend = str(settings["result_backend"])
        if backend.startswith("db+postgresql://"):
            # SQLAlchemy 2.1 takes psycopg 3 where none is named; psycopg2 is what we require.
            backend = backend.replace("postgresql", "postgresql+psycopg2", 1)
            settings["result_backend"] = backend
        if not backend.startswith("toolbox+") and "result_extended" not in found:
            if own["MONITOR_REDACT"] or not own["MONITOR_STORE_ARGS"]:
                # Another result backend would store the arguments beside the result.
                settings["result_extended"] = False
        if backend.startswith("db+sqlite"):
            # pool processes write results at the same time; SQLite's own patience is 5 seconds
            options = {"pool_pre_ping": True, "connect_args": {"timeout": 30}}
            settings.setdefault("database_engine_options", options)
        self._check_visibility(kind, own, settings)
        self._add_topology(kind, own, settings)
        return settings

    @staticmethod
    def _add_topology(kind: str, own: dict[str, Any], settings: dict[str, Any]) -> None:
        """Queues and routes, from the names of the queues."""
        options = settings["broker_transport_options"]
        monitor_name, queue_type = own["PLATFORM_QUEUE_NAME"], own["QUEUE_TYPE"]
        prefix = options.get("queue_name_prefix", "") if kind == "sqs" else None
        validate_queues(
            own["QUEUES"], monitor=monitor_name, queue_type=queue_type, sqs_prefix=prefix
        )
        default = settings["task_default_queue"]
        names = list(dict.fromkeys([*own["QUEUES"], default or DEFAULT_QUEUE]))
        if monitor_name in names:
            names.remove(monitor_name)
        if kind == "sqs" and options.get("predefined_queues"):
            _check_predefined(options["predefined_queues"], [*names, monitor_name], prefix or "")
        queue_type = queue_type if kind == "amqp" else "classic"
        exchange = Exchange(
            settings["task_default_exchange"], type=settings["task_default_exchange_type"]
        )
        monitor = monitor_queue(monitor_name, exchange, queue_type)
        if settings.get("task_queues") is None:
            settings["task_queues"] = [work_queue(name, exchange, queue_type) for name in names]
        queues = {queue.name: queue for queue in settings["task_queues"]}
        if monitor_name in queues:
            raise ConfigError(
                f"task_queues holds the monitor queue {monitor_name!r}: a worker would consume the "
                f"copies and run each task again. Take it out."
            )
        for queue in queues.values():
            set_max_priority(queue, settings.get("task_queue_max_priority"))
        if kind == "amqp":
            require_possible_queues(queues.values())
            _check_queue_types(own["QUEUE_TYPE"], settings)
        settings["task_routes"] = Router(
            queues,
            monitor,
            default_queue=default,
            user_routes=settings.get("task_routes"),
            message_groups=kind == "sqs",
            expires_on_broker=str(settings.get("broker_transport")).startswith("toolbox-amqp"),
            delay_queue_type=settings.get("broker_native_delayed_delivery_queue_type", "quorum"),
        )

    @staticmethod
    def _check_visibility(kind: str, own: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        given = settings["broker_transport_options"].get("visibility_timeout")
        if given is not None and given < longest_run(own, settings):
            warnings.warn(
                f"broker_transport_options: a visibility_timeout of {given} seconds is below a "
                f"time limit or ETA_HORIZON; the broker will hand such tasks out twice.",
                ConfigWarning,
                stacklevel=5,
            )

    def _rendered(self, name: str, value: Any) -> Any:
        """``value`` with ``{0.RESULT_DB_HOST}`` and its like filled in, as parts of a URL."""
        if not isinstance(value, str) or "{" not in value:
            return value
        try:
            return value.format(_Quoted(self))
        except (AttributeError, IndexError, KeyError, ValueError) as exc:
            raise ConfigError(
                f"{name}: the template cannot be rendered ({exc}). Use the form "
                f"'{{0.RESULT_DB_HOST}}', and '{{{{' for a brace."
            ) from None

    def _yield_to_arguments(self, found: Mapping[str, Any]) -> None:
        """Make what was given win where Celery itself reads an environment variable."""
        broker = os.environ.get("CELERY_BROKER_URL")
        if found.get("broker_url") and broker and broker != found["broker_url"]:
            self.setdefault("broker_read_url", found["broker_url"])
            self.setdefault("broker_write_url", found["broker_url"])
        backend = os.environ.get("CELERY_RESULT_BACKEND")
        if backend and backend != self["result_backend"]:
            warnings.warn(
                "the environment variable CELERY_RESULT_BACKEND is set, and Celery itself lets it "
                "win, as it is written, over result_backend: unset it, or set it to the full URL.",
                ConfigWarning,
                stacklevel=3,
            )

    def _register(self) -> None:
        """Make Celery know what these settings name; it forces these registries on us."""
        names = ("broker_url", "broker_read_url", "broker_write_url")
        urls = [self.get(name) for name in names]
        if any(broker_kind(url) == "embedded" for url in urls if url):
            from ..brokers.embedded.transport import register  # brings SQLite along

            register()
        transports.register()
        survive_forks()
        publishing.connect()
        signals.worker_init.connect(
            _set_up_worker, weak=False, dispatch_uid="workertoolbox.set_up_worker"
        )

    def to_dict(self) -> dict[str, Any]:
        """All settings with their real values, secrets included."""
        return dict(self)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"Config has no setting {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), *self])

    def copy(self) -> Config:
        """An independent config of the same settings."""
        return _restored(dict(self))

    __copy__ = copy

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (dict(self),)

    def __repr__(self) -> str:
        lines = (
            f"    {name}={masked(value, name)!r},\n"
            for name, value in sorted(self.items())
            if name.islower()
        )
        return f"Config(\n{''.join(lines)})"


def _restored(settings: dict[str, Any]) -> Config:
    config = Config.__new__(Config)
    config.update(settings)
    config._register()
    return config


class _Quoted:
    """The settings of a config as they stand in a URL."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __getattr__(self, name: str) -> str:
        return quote(str(getattr(self._config, name)), safe="")


def _check_names(settings: Mapping[str, Any]) -> None:
    for name in settings:
        if name in defaults.OWN or name in CELERY_OPTIONS:
            continue
        if name in OLD_NAMES:
            raise ConfigError(f"{name} is Celery's old name: use {OLD_NAMES[name]}.")
        near = difflib.get_close_matches(name.lower(), [*CELERY_OPTIONS], 1)
        if name.isupper():
            near = difflib.get_close_matches(name, [*defaults.OWN], 1)
            if not near:
                continue  # an app's own
        hint = f": did you mean {near[0]}?" if near else " is no setting of Celery."
        warnings.warn(f"{name}{hint}", ConfigWarning, stacklevel=3)


def _check_queue_types(queue_type: str, settings: Mapping[str, Any]) -> None:
    name = "task_default_queue_type"
    given = settings.get(name)
    if given not in (None, "classic", queue_type):
        raise ConfigError(
            f"{name} is {given!r}, which Celery heeds only where it makes the default queue: set "
            f"QUEUE_TYPE={given!r}, which is for all queues."
        )


def _check_predefined(predefined: Mapping[str, Any], names: list[str], prefix: str) -> None:
    if prefix:
        raise ConfigError(
            "broker_transport_options: with predefined_queues, acknowledgements fail under a "
            "queue_name_prefix: drop it, or write it into the queues' names."
        )
    missing = [n for n in names if n not in predefined and sqs_name(n) not in predefined]
    if missing:
        raise ConfigError(
            f"broker_transport_options: predefined_queues lacks {', '.join(missing)}; list every "
            f"queue, the monitor queue too."
        )


def _set_up_worker(sender: Any = None, **_: Any) -> None:
    app = getattr(sender, "app", None)
    if app is not None and isinstance(app.conf.task_routes, Router):
        from ..worker.setup import setup_app  # a producer needs none of it

        setup_app(app, throw=False)
