"""The first step to a ``Config``: which settings are given, by arguments or by the environment.

It is a function of its inputs alone, as are the two steps after it: :mod:`.resolving`, which
adds the defaults, and :mod:`.building`, which makes queues and routes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from celery.app.defaults import NAMESPACES, flatten
from kombu import Queue

from ..errors import ConfigError
from . import defaults, environment

#: Which environment variable tells the prefix of the others, and the prefix where none tells.
PREFIX_VARIABLE, PREFIX = "CELERY_ENV_PREFIX", "CELERY_"
#: Settings that Celery itself takes from the environment, over all others, and the variables.
FROM_ENVIRONMENT: dict[str, str] = {
    "broker_url": "CELERY_BROKER_URL",
    "broker_read_url": "CELERY_BROKER_READ_URL",
    "broker_write_url": "CELERY_BROKER_WRITE_URL",
    "result_backend": "CELERY_RESULT_BACKEND",
}
#: Celery's settings by name: the type that the value of an environment variable has.
CELERY_KINDS: dict[str, str] = {name: str(option.type) for name, option in flatten(NAMESPACES)}
#: The toolbox's settings by name: the same.
TOOLBOX_KINDS: dict[str, str] = {name: kind for name, (kind, _, _) in defaults.OWN.items()}


def _former_names(namespace: str, key: str, option: Any) -> list[tuple[str, str]]:
    name = f"{namespace}{key}"
    return [(former.format(key).upper(), name) for former in option.old or {name}]


@cache
def former_names() -> dict[str, str]:
    """Return the names that Celery's settings had before Celery 4, and the names of today."""
    return dict(flatten(NAMESPACES, keyfilter=_former_names))


class Given(NamedTuple):
    """What is given, before any default.

    Attributes:
        toolbox: the toolbox's settings by name.
        celery: Celery's settings by name, and those of an application of its own.
        prefix: of environment variables.
        doubts: what was probably not meant, a sentence each.
        queues: what an app declares so far; each is to listen on the toolbox's exchange as well.
    """

    toolbox: Mapping[str, Any]
    celery: Mapping[str, Any]
    prefix: str = PREFIX
    doubts: tuple[str, ...] = ()
    queues: tuple[Queue, ...] = ()


def read(
    arguments: Mapping[str, Any], environ: Mapping[str, str], *, prefix: str | None = None
) -> Given:
    """Read the settings; an argument wins over the environment.

    Args:
        arguments: settings by name, the toolbox's and Celery's together.
        environ: the environment variables.
        prefix: of the variables that are settings; default: as :data:`PREFIX_VARIABLE` tells.

    Raises:
        ConfigError: an argument has a name that Celery has given up, or a variable does not parse.
    """
    if prefix is None:
        prefix = environ.get(PREFIX_VARIABLE, PREFIX)
    doubts = tuple(_doubtful_names(arguments))
    toolbox = environment.read(environ, prefix, TOOLBOX_KINDS, arguments)
    celery = environment.read(environ, prefix, CELERY_KINDS, arguments)
    for name, value in arguments.items():
        (toolbox if name in TOOLBOX_KINDS else celery)[name] = value
    return Given(toolbox, celery, prefix, doubts)


def with_queues(queues: Iterable[str] | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``settings`` with ``queues`` as ``QUEUES``.

    Raises:
        ConfigError: both are given and differ.
    """
    if queues is None:
        return dict(settings)
    if settings.get("QUEUES", queues) != queues:
        raise ConfigError("queues and QUEUES are both given and differ: drop one.")
    return {**settings, "QUEUES": queues}


def _doubtful_names(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name in TOOLBOX_KINDS or name in CELERY_KINDS:
            continue
        if name in former_names():
            raise ConfigError(f"{name} is Celery's old name: use {former_names()[name]}.")
        near = difflib.get_close_matches(name.lower(), [*CELERY_KINDS], 1)
        if name.isupper():
            near = difflib.get_close_matches(name, [*TOOLBOX_KINDS], 1)
            if not near:
                continue  # an app's own
        yield f"{name}{f': did you mean {near[0]}?' if near else ' is no setting of Celery.'}"
