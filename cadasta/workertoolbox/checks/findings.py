"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..plain.urls import mask_url

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``celery check``."""

    level: Level
    #: What was looked at, such as "queue export".
    subject: str
    #: What was found.
    text: str
    #: What to do; empty where all is well.
    remedy: str = ""


def ok(subject: str, text: str) -> Finding:
    """Return a finding that needs nobody."""
    return Finding("ok", subject, text)


def error(subject: str, exc: BaseException | str, remedy: str) -> Finding:
    """Return a finding that has to be mended; of an exception its first line, without secrets."""
    if isinstance(exc, BaseException):
        lines = str(exc).strip().splitlines() or [""]
        exc = f"{type(exc).__name__}: {lines[0]}"
    return Finding("error", subject, mask_url(exc), remedy)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """Return a finding that somebody should look at."""
    return Finding("warning", subject, text, remedy)
