"""What of arguments, headers and stamps may be stored."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .redaction import Redaction, make_redaction

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoragePolicy:
    """What of a task's message may be stored, in the ledger and beside its result.

    Attributes:
        store_args: store arguments at all.
        max_args_bytes: the largest JSON text of ``args`` or ``kwargs`` that is stored, in bytes.
        redact: replaces arguments before anything is stored.
        redact_headers: returns what is stored of custom headers, of stamps, or of properties.
    """

    store_args: bool = True
    max_args_bytes: int = 65_536
    redact: Redaction | None = None
    redact_headers: Callable[[Any], Any] | None = None

    @classmethod
    def from_app(cls, app: Any) -> StoragePolicy:
        """What the settings of ``app`` say, or where it has none of the toolbox's, their defaults.

        Raises:
            ConfigError: ``MONITOR_REDACT`` is neither a list of names nor a function.
        """
        get = app.conf.get
        redact, redact_headers = make_redaction(get("MONITOR_REDACT"), app.tasks)
        return cls(
            store_args=get("MONITOR_STORE_ARGS", True),
            max_args_bytes=get("MONITOR_MAX_ARGS_BYTES", 65_536),
            redact=redact,
            redact_headers=redact_headers,
        )

    @property
    def hides(self) -> bool:
        """Whether some values may be stored nowhere."""
        return self.redact is not None or not self.store_args

    def arguments(self, name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """What may be stored of the arguments of the task ``name``; raises what ``redact`` does."""
        return (args, kwargs) if self.redact is None else self.redact(name, args, kwargs)

    def mapping(self, value: Any) -> Any:
        """What may be stored of headers, stamps or properties."""
        if self.redact_headers is None:
            return value
        try:
            return self.redact_headers(value)
        except RecursionError:
            return {"error": "nested too deeply to be redacted"}

    def fits(self, text: str | bytes) -> bool:
        """Tell whether the JSON text of arguments is not too large."""
        return len(text) <= self.max_args_bytes


#: Whatever comes, within the default size.
EVERYTHING = StoragePolicy()


def log_unstored_arguments(name: str, exc: Exception) -> None:
    """Say that a task's arguments are not stored; no more, since the error could tell them."""
    logger.warning(
        "The arguments of a %s are not stored: %s in redacting or writing them",
        name,
        type(exc).__name__,
    )


def records_ignored(conf: Any) -> bool:
    """Tell whether an app's workers store how tasks end that ignore their result.

    Args:
        conf: the app's configuration, as Celery shows it.
    """
    backend = str(conf.get("result_backend") or "")
    is_ours = backend.startswith(("toolbox", "cadasta.workertoolbox."))
    return is_ours and bool(conf.get("RECORD_IGNORED", True))
