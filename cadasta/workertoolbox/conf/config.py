"""``Config``: the settings of Celery, from arguments, environment and defaults."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from ..errors import ConfigError
from ..plain.masking import masked
from .building import build
from .doubts import ConfigWarning
from .reading import FROM_ENVIRONMENT, read, with_queues
from .registration import register
from .resolving import resolve


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
        base: the settings that an app has had so far, all of which are taken: a mapping, a module
            or another object, or the name of one (``"proj.celeryconfig"``). They count as
            arguments; an argument beside them wins. Its queues keep their arguments and bindings,
            its routes pick the queue.
        namespace: the prefix of the names in ``base``, such as ``"CELERY"`` in Django's settings.
        **settings: any setting of Celery, and those of :data:`.defaults.OWN`. Options given in
            ``broker_transport_options`` and ``task_publish_retry_policy`` are merged over the
            defaults; every other value replaces its default.

    Raises:
        ConfigError: a setting cannot work; names it and the remedy.

    Warns:
        ConfigWarning: the name is no setting of Celery, or Celery will not heed the setting.
    """

    def __init__(
        self,
        queues: Iterable[str] | None = None,
        *,
        ENV_PREFIX: str | None = None,
        base: Any = None,
        namespace: str | None = None,
        **settings: Any,
    ) -> None:
        arguments, others = with_queues(queues, settings), {}
        if base is None:
            given = read(arguments, os.environ, prefix=ENV_PREFIX)
        else:
            from . import existing  # most apps of Config have none

            conf = existing.load(base, namespace)
            given = existing.given_by(conf, arguments, os.environ, prefix=ENV_PREFIX)
            others = existing.others_in(conf)
        resolved = resolve(given, os.environ)
        for doubt in (*given.doubts, *resolved.doubts):
            warnings.warn(doubt, ConfigWarning, stacklevel=2)
        super().__init__({**others, **build(resolved)})
        register()

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

        Raises:
            ConfigError: as for :class:`Config`; or an environment variable that Celery itself
                obeys names a server.
        """
        folder = os.path.abspath(os.path.expanduser(os.fspath(directory)))
        settings.setdefault("broker_url", f"embedded:///{quote(folder)}/broker.sqlite3")
        settings.setdefault("result_backend", f"toolbox+sqlite:///{folder}/ledger.sqlite3")
        settings.setdefault("LEDGER_URL", None)
        for name in ("broker_read_url", "broker_write_url", "result_backend"):
            variable = FROM_ENVIRONMENT[name]
            given = os.environ.get(variable)
            if given and given != settings.get(name):
                raise ConfigError(
                    f"Config.local: the environment variable {variable} is set, and Celery lets it "
                    "win over the local files: unset it, or use Config, which takes it."
                )
        return cls(queues, **settings)

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
    register()
    return config
