"""``adopt``: the toolbox in an app that has its settings from elsewhere."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigError
from .building import build
from .doubts import ConfigWarning
from .existing import given_by
from .guard import config_of
from .overlay import Overlay
from .registration import register, restored
from .resolving import BACKENDS, resolve

_adoptions: weakref.WeakKeyDictionary[Any, Adoption] = weakref.WeakKeyDictionary()


def adopt(app: Any, queues: Iterable[str] | None = None, **settings: Any) -> None:
    """Record every task of an app that is configured already: one line, after what is there.

    It takes all settings that the app has, whoever gave them: the constructor, an object or a
    module, Django's settings under any namespace, the environment, ``app.conf.update`` (also later
    on). The toolbox's defaults go under them, its exchange and routes over them. An app whose
    settings cannot be read yet is adopted when they are. It may be called more than once: the
    queues add up, of two settings the later counts.

    Args:
        app: a Celery app.
        queues: the names of all queues that the app consumes from or publishes to; those of its
            ``task_queues`` and its default queue are added. Default: the names in
            ``task_queues``, ``task_routes`` and ``beat_schedule``, and the default queue.
        **settings: as for :class:`~.config.Config`; they win over the app's own.

    Raises:
        ConfigError: a setting cannot work, or cannot go together with the toolbox; names it and
            the remedy. Where the app is not configured yet, its first use raises it.

    Warns:
        ConfigWarning: a setting is kept, but is probably not what was meant.
    """
    if isinstance(queues, str):
        raise ConfigError(f"queues must be a list of queue names, not {queues!r}.")
    app = app.loader.app  # the app itself, where it is a proxy, as celery.current_app
    adoption = _adoptions.get(app)
    if adoption is None:
        adoption = _adoptions[app] = Adoption(app)
        app.on_after_configure.connect(_adopt_anew, weak=False, dispatch_uid="workertoolbox.adopt")
    adoption.extend(queues, settings)
    app.loader.override_backends = {**BACKENDS, **app.loader.override_backends}
    if app.configured:
        adoption.apply()
    elif not adoption.is_promised:
        # Errors of such a promise are handed on, those of a signal's receiver are not.
        adoption.is_promised = True
        app.add_defaults(adoption.keep_promise)


class Adoption:
    """What is to be put over the settings of one app."""

    def __init__(self, app: Any) -> None:
        self._app = weakref.ref(app)
        self._queues: list[str] = []
        self._settings: dict[str, Any] = {}
        self._told: set[str] = set()
        self.is_promised = False

    def extend(self, queues: Iterable[str] | None, settings: Mapping[str, Any]) -> None:
        """Add queues and settings to those of earlier calls."""
        self._queues = list(dict.fromkeys([*self._queues, *(queues or ())]))
        self._settings.update(settings)

    def keep_promise(self) -> dict[str, Any]:
        """Put the settings over those of the app, which are there now; no defaults of its own."""
        self.is_promised = False
        self.apply()
        return {}

    def apply(self) -> None:
        """Put the settings over those of the app.

        Raises:
            ConfigError: they cannot go together; until they do, each publish raises it as well.
        """
        app = self._app()
        if app is None:
            return
        if config_of(app.conf) is None:
            overlay = Overlay.of(app.conf)
            overlay.restore = restored
            overlay.use(self._over)
        elif self._queues or self._settings:
            raise ConfigError(
                f"app {app.main!r} is configured by Config, to which adopt() cannot add: give "
                "queues and settings to Config, or leave Config out."
            )

    def _over(self, conf: Any) -> dict[str, Any]:
        """The settings to show over those in ``conf``, the app's own."""
        arguments = dict(self._settings)
        if self._queues:
            arguments["QUEUES"] = list(self._queues)
        given = given_by(conf, arguments, os.environ)
        resolved = resolve(given, os.environ)
        for doubt in (*given.doubts, *resolved.doubts):
            if doubt not in self._told:
                self._told.add(doubt)
                warnings.warn(doubt, ConfigWarning, stacklevel=2)
        settings = build(resolved)
        register()
        app = self._app()
        if app is not None and vars(app).pop("amqp", None):
            app._pool = None  # made of the settings before; so were queues and router
        return settings


def _adopt_anew(sender: Any = None, **_: Any) -> None:
    """Adopt an app whose settings were read again, as by a second ``config_from_object``."""
    adoption = _adoptions.get(sender)
    if adoption is not None and not isinstance(sender.conf.maps[0], Overlay):
        adoption.apply()
