"""What an app has already: its settings under the names of today, fit to go with the toolbox.

The toolbox's topology goes over it: an app's queues keep their names, arguments and bindings, and
get one more binding, to the exchange that feeds the monitor. Its routes pick the queue.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from celery import Celery
from kombu import Exchange, Queue

from ..errors import ConfigError
from ..routing.names import DEFAULT_QUEUE
from ..routing.router import Router
from .environment import parse
from .reading import (
    CELERY_KINDS,
    FROM_ENVIRONMENT,
    PREFIX,
    PREFIX_VARIABLE,
    TOOLBOX_KINDS,
    Given,
    former_names,
    read,
)
from .user_routes import UserRoutes, is_movable, routed_queues

#: What an app says of its default exchange; as arguments they are of the toolbox's exchange.
_OF_THE_EXCHANGE = frozenset(
    {"task_default_exchange", "task_default_exchange_type", "task_default_routing_key"}
)
#: What Celery keeps among the changes of a configuration.
_CELERYS_OWN = "deprecated_settings"
#: How like a known name an unknown one is to be taken for a slip.
_LIKENESS = 0.85


class Existing(NamedTuple):
    """The settings of an app, as far as they are to be kept.

    Attributes:
        settings: by name, the toolbox's and Celery's together.
        queues: the app's queues, as it declares them.
        doubts: what was probably not meant, a sentence each.
    """

    settings: Mapping[str, Any]
    queues: tuple[Queue, ...] = ()
    doubts: tuple[str, ...] = ()


def load(base: Any, namespace: str | None) -> Any:
    """Return the settings in ``base`` as an app would show them.

    Args:
        base: a mapping, a module or another object, or the name of one: ``module``,
            ``module:object``.
        namespace: the prefix of the settings' names, as in ``config_from_object``.

    Raises:
        ConfigError: there is no such module or object.
    """
    app = Celery(set_as_current=False, fixups=[], loader="app")
    try:
        app.config_from_object(base, namespace=namespace, force=True)
        return app.conf
    except (ImportError, AttributeError, ValueError) as exc:
        raise ConfigError(
            f"base={base!r} cannot be read ({exc}): give a mapping, or the name of a module or of "
            "an object in it, as in base='proj.celeryconfig' or base='proj.celeryconfig:Config'."
        ) from exc
    finally:
        app.close()


def settings_in(conf: Any, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what is set in the configuration of an app, under the names of today.

    Args:
        conf: an app's configuration, without what the toolbox has put into it.
        environ: the environment variables, of which Celery heeds a few itself.
    """
    settings = {name: conf[name] for name in sorted(CELERY_KINDS) if conf.value_set_for(name)}
    if "timezone" not in settings and conf.value_set_for("TIME_ZONE"):
        settings["timezone"] = conf.timezone  # Django's own setting
    for name, variable in FROM_ENVIRONMENT.items():
        if environ.get(variable):
            settings[name] = environ[variable]
    for name in TOOLBOX_KINDS:
        for mapping, key in _places(conf, name):
            if key in mapping and (name != "QUEUES" or _are_names(mapping[key])):
                settings[name] = mapping[key]
                break
    if settings.get("task_queues") and settings.get("QUEUES") is settings["task_queues"]:
        del settings["task_queues"]  # CELERY_QUEUES was its name once
    return settings


def _places(conf: Any, name: str) -> Iterator[tuple[Any, str]]:
    """Where a setting of the toolbox may stand: the app's mappings, and its key in each."""
    changes, *sources = conf.maps[:-1]
    yield changes, name
    for mapping in sources:
        if conf.prefix:
            yield mapping, f"{conf.prefix}{name}".upper()
        else:
            yield mapping, name


def _are_names(queues: Any) -> bool:
    return isinstance(queues, list | tuple | set | frozenset) and all(
        isinstance(name, str) for name in queues
    )


def others_in(conf: Any) -> dict[str, Any]:
    """Return the settings that neither Celery nor the toolbox knows, which an app may read."""
    others: dict[str, Any] = {}
    for mapping in reversed(conf.maps[:-1]):
        for name in mapping:
            value = _value(mapping, name)
            if not isinstance(name, str) or name.startswith("_") or name == _CELERYS_OWN:
                continue
            if isinstance(value, ModuleType) or callable(value):
                continue  # what a module has imported or defined
            stem = _stem(name, conf.prefix)
            if conf.prefix and stem is None:
                continue
            known = (stem or name).lower()
            if known in CELERY_KINDS or known.upper() in TOOLBOX_KINDS or name in former_names():
                continue
            others[name] = value
            if stem is not None:
                others[known] = value
    return others


def _value(mapping: Any, name: str) -> Any:
    try:
        return mapping[name]
    except Exception:  # a property of an object
        return None


def _stem(name: str, prefix: str | None) -> str | None:
    """The name without the prefix; None where it does not begin with it."""
    if not prefix or not name.upper().startswith(prefix.upper()):
        return None
    return name[len(prefix) :]


def slips_in(conf: Any) -> Iterator[str]:
    """Tell of names with the app's prefix that look like a setting's and are none."""
    if not conf.prefix:
        return
    for name in sorted({name for mapping in conf.maps[:-1] for name in mapping}):
        stem = _stem(name, conf.prefix)
        if stem is None or name in former_names():
            continue
        if stem.lower() in CELERY_KINDS or stem.upper() in TOOLBOX_KINDS:
            continue
        near = difflib.get_close_matches(stem.lower(), [*CELERY_KINDS], 1, _LIKENESS)
        if near:
            yield f"{name}: did you mean {conf.prefix}{near[0].upper()}?"


def fit(settings: Mapping[str, Any], environ: Mapping[str, str], prefix: str) -> Existing:
    """Make the settings of an app go together with the toolbox.

    Args:
        settings: by name, as :func:`settings_in` tells; ``QUEUES`` may be missing.
        environ: the environment variables.
        prefix: of those that are settings.

    Raises:
        ConfigError: a setting cannot go together with the toolbox.
    """
    fitted = dict(settings)
    doubts = list(_doubts(fitted, environ, prefix))
    _refuse(fitted)
    routes = fitted.pop("task_routes", None)
    if isinstance(routes, Router):
        routes = routes.user_routes
    default = fitted.get("task_default_queue") or DEFAULT_QUEUE
    exchange = Exchange(
        fitted.pop("task_default_exchange", None) or default,
        type=fitted.pop("task_default_exchange_type", None) or "direct",
    )
    is_named = "task_default_exchange" in settings
    default_key = fitted.pop("task_default_routing_key", None) or default
    queues = [_whole(queue, exchange, default_key) for queue in _queues(fitted)]
    fitted.pop("task_queues", None)
    known = {queue.name for queue in queues}
    if default not in known:
        kind = fitted.get("task_default_queue_type")
        queues.append(_missing(default, exchange if is_named else None, default_key, kind))
    routed = [*routed_queues(routes), *_scheduled(fitted.get("beat_schedule"))]
    names = fitted.get("QUEUES")
    if names is None:
        names = [queue.name for queue in queues if is_movable(queue)]
        aliases = {queue.alias for queue in queues}
        names = dict.fromkeys([*names, *(name for name in routed if name not in aliases)])
        fitted["QUEUES"] = names = list(names)
    if _are_names(names):  # what is none is refused later
        kind = fitted.get("task_create_missing_queue_type")
        have = {queue.name for queue in queues}
        queues += [_missing(name, None, name, kind) for name in names if name not in have]
        fitted["QUEUES"] = list(dict.fromkeys([*names, *(q.name for q in queues if is_movable(q))]))
    if "QUEUE_TYPE" not in fitted and fitted.get("task_default_queue_type") == "quorum":
        fitted["QUEUE_TYPE"] = "quorum"
    if routes:
        fitted["task_routes"] = UserRoutes(routes, tuple(queues), exchange, default)
    return Existing(fitted, tuple(queues), tuple(doubts))


def given_by(
    conf: Any,
    arguments: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    prefix: str | None = None,
) -> Given:
    """Return what is given by an app's own settings, the arguments over them and the environment.

    Args:
        conf: the app's configuration, without what the toolbox has put into it.
        arguments: settings by name, which win.
        environ: the environment variables.
        prefix: of those that are settings; default: as :func:`~.reading.read`.

    Raises:
        ConfigError: a setting cannot go together with the toolbox.
    """
    prefix = prefix or environ.get(PREFIX_VARIABLE, PREFIX)
    own = read(arguments, {}, prefix=prefix)
    ours = {name: own.celery[name] for name in _OF_THE_EXCHANGE if name in own.celery}
    given = {name: value for name, value in arguments.items() if name not in ours}
    settings = {**settings_in(conf, environ), **given}
    if "QUEUES" not in settings and f"{prefix}QUEUES" in environ:
        settings["QUEUES"] = read({}, environ, prefix=prefix).toolbox["QUEUES"]
    fitted = fit(settings, environ, prefix)
    doubts = (*own.doubts, *slips_in(conf), *fitted.doubts)
    whole = read({**fitted.settings, **ours}, environ, prefix=prefix)
    return whole._replace(doubts=doubts, queues=fitted.queues)


def _queues(settings: Mapping[str, Any]) -> Sequence[Queue]:
    """The app's queues; Celery takes a mapping of options as well."""
    queues = settings.get("task_queues") or ()
    if isinstance(queues, Mapping):
        return [
            options
            if isinstance(options, Queue)
            else Queue.from_dict(name, **{"routing_key": name, **options})
            for name, options in queues.items()
        ]
    return list(queues)


def _whole(queue: Queue, exchange: Exchange, routing_key: str) -> Queue:
    """The queue as Celery would complete it."""
    if type(queue) is not Queue or (queue.exchange and queue.exchange.name):
        return queue
    if not queue.routing_key and exchange.type == "direct":
        return queue  # Celery publishes to it by its name alone
    key = queue.routing_key or routing_key
    return Queue(**{**queue.as_dict(), "exchange": exchange, "routing_key": key})


def _missing(name: str, exchange: Exchange | None, routing_key: str, kind: str | None) -> Queue:
    """A queue that the app does not list, with the arguments that Celery would declare it with."""
    arguments = {"x-queue-type": "quorum"} if kind == "quorum" else None
    return Queue(name, exchange, routing_key=routing_key, queue_arguments=arguments)


def _scheduled(beat_schedule: Any) -> Iterator[str]:
    """The queues that beat sends tasks to."""
    for entry in (beat_schedule or {}).values():
        options = entry.get("options") if isinstance(entry, Mapping) else None
        queue = (options or {}).get("queue")
        if isinstance(queue, str):
            yield queue


def _refuse(settings: Mapping[str, Any]) -> None:
    """Refuse what cannot go together with the toolbox.

    Raises:
        ConfigError: names the setting and the remedy.
    """
    kind = settings.get("task_default_exchange_type")
    if kind not in (None, "direct", "topic"):
        raise ConfigError(
            f"task_default_exchange_type is {kind!r}: the toolbox publishes to a topic exchange, "
            "which feeds the monitor. Leave it out; queues of a fanout exchange go into "
            "task_queues, and publishes to them are recorded as well."
        )
    if settings.get("task_protocol", 2) != 2:
        raise ConfigError(
            f"task_protocol is {settings['task_protocol']!r}: its messages have no headers, of "
            "which the ledger is made. Leave it out (Celery 4 and later read protocol 2)."
        )


def _doubts(settings: Mapping[str, Any], environ: Mapping[str, str], prefix: str) -> Iterator[str]:
    serializer = settings.get("task_serializer")
    if serializer not in (None, "json"):
        yield (
            f"task_serializer is {serializer!r}: the ledger keeps every task, but its arguments "
            "only where they are JSON. Use 'json'."
        )
    backend = settings.get("result_backend")
    scheme = str(backend or "").partition(":")[0].partition("+")[0]
    if backend and scheme not in ("db", "database", "toolbox") and not settings.get("LEDGER_URL"):
        yield (
            f"result_backend is a {scheme!r} one: the ledger cannot show how tasks ended, and "
            "LEDGER_URL has to name its database. Use toolbox+postgresql://…"
        )
    parts = [name for name in TOOLBOX_KINDS if name.startswith("RESULT_DB_")]
    if not backend and not any(name in settings or f"{prefix}{name}" in environ for name in parts):
        yield (
            "no result_backend is named: results and ledger go to the database cadasta on "
            "localhost, and without it each task waits for half an hour. Name yours: "
            "result_backend='toolbox+postgresql://user:password@host/name'."
        )
    for name, value in settings.items():
        variable = f"{prefix}{name.upper()}"
        if name in FROM_ENVIRONMENT or variable not in environ:
            continue
        kinds = TOOLBOX_KINDS if name in TOOLBOX_KINDS else CELERY_KINDS
        try:
            differs = parse(variable, environ[variable], kinds[name]) != value
        except ConfigError:
            differs = True
        if differs and not _is_same(value, environ[variable]):
            yield (
                f"the environment variable {variable} is set, but the app has a {name} of its "
                "own, which holds: unset one of them."
            )


def _is_same(value: Any, text: str) -> bool:
    """Whether a setting and a variable look alike: a list may have become a tuple."""
    if isinstance(value, list | tuple | set | frozenset):
        return sorted(map(str, value)) == sorted(part.strip() for part in text.split(","))
    return str(value) == text
