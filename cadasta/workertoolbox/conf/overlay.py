"""The toolbox's settings over those of an app, whatever the program changes later on.

An app's configuration is a stack of mappings, the uppermost of which holds what the program has
changed. :class:`Overlay` takes its place: it shows settings over all others, and works them out
anew whenever one of the app's own is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from ..errors import ConfigError

#: How the names of settings begin from which others follow; a change of another is only kept.
_MATTERING = ("task_", "broker_", "result_", "celery_", "accept_", "beat_schedule")


class Overlay(dict[str, Any]):
    """The changes of an app's configuration, with settings of the toolbox over them.

    Args:
        conf: the configuration, as Celery's apps have it.
    """

    def __init__(self, conf: Any) -> None:
        super().__init__(conf.maps[0])
        #: What was changed in the program.
        self.own: dict[str, Any] = dict(conf.maps[0])
        self._conf = conf
        self._over: Callable[[Any], Mapping[str, Any]] | None = None
        #: What makes settings of the pickled ones, in a child process.
        self.restore: Callable[[dict[str, Any]], dict[str, Any]] = dict

    @classmethod
    def of(cls, conf: Any) -> Overlay:
        """Return the overlay of a configuration, which is put there if there is none."""
        overlay = conf.maps[0]
        if not isinstance(overlay, cls):
            overlay = cls(conf)
            conf.maps[0] = overlay
            conf.__dict__["changes"] = overlay  # as Celery's own swap_with does
        return overlay

    def use(self, over: Callable[[Any], Mapping[str, Any]]) -> None:
        """Show what ``over`` makes of the app's own settings, now and after each change.

        Raises:
            ConfigError: they cannot be used; until they can, each publish raises it as well.
        """
        try:
            self._show(self.own, over)
        except ConfigError as error:
            if self._over is None:  # it must not go on unrecorded
                self._put(self.own, {"task_routes": Refusal(error)})
            raise
        self._over = over

    def _show(self, own: dict[str, Any], over: Callable[[Any], Mapping[str, Any]]) -> None:
        plain = self._conf.copy()
        plain.changes.clear()
        plain.changes.update(own)
        self._put(own, over(plain))

    def _put(self, own: dict[str, Any], over: Mapping[str, Any]) -> None:
        # Celery looks for the name with the prefix first.
        prefix = self._conf.prefix or ""
        hidden = {spelt(f"{prefix}{name}") for name in over for spelt in (str.upper, str.lower)}
        self.own = own
        super().clear()
        super().update({name: value for name, value in own.items() if name not in hidden})
        super().update(over)

    def _change(self, own: dict[str, Any], *names: str) -> None:
        matters = any(name.isupper() or name.startswith(_MATTERING) for name in names)
        if matters and self._over is not None:
            self._show(own, self._over)
            return
        self.own = own
        for name in names:
            if name in own:
                super().__setitem__(name, own[name])
            else:
                super().pop(name, None)

    def __setitem__(self, name: str, value: Any) -> None:
        self._change({**self.own, name: value}, name)

    def __delitem__(self, name: str) -> None:
        own = dict(self.own)
        del own[name]
        self._change(own, name)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Change several settings in one step."""
        changes = dict(*args, **kwargs)
        self._change({**self.own, **changes}, *changes)

    def pop(self, name: str, *default: Any) -> Any:
        """Take a change of the program back."""
        own = dict(self.own)
        value = own.pop(name, *default)
        self._change(own, name)
        return value

    def clear(self) -> None:
        """Take all changes of the program back."""
        self._change({}, *self.own)

    def copy(self) -> dict[str, Any]:
        """Return what is shown, as a plain dictionary."""
        return dict(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.restore, (dict(self),)


class Refusal:
    """The routes of an app whose settings cannot be used: each publish raises why."""

    def __init__(self, error: ConfigError) -> None:
        self.reason = str(error)

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise ConfigError(self.reason)
