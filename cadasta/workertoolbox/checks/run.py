"""``celery check``: what is wrong with a deployment, each finding with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..routing.router import router_of
from .broker import check_broker, check_workers
from .database import check_database, check_monitor
from .findings import Finding
from .settings import check_settings

__all__ = ["Finding", "run_checks"]


def run_checks(app: Any, timeout: float = 10.0) -> Iterator[Finding]:
    """Look at everything that a deployment needs; nothing is changed, and no task is run.

    It publishes probes: messages of a task that has expired, which a worker drops, and which the
    ledger keeps under the name ``workertoolbox.probe``.

    Args:
        app: a Celery app that is configured by :class:`~..conf.config.Config`.
        timeout: seconds to wait for the monitor.

    Raises:
        ConfigError: the app is not configured by ``Config``.
    """
    router_of(app)
    yield from check_settings(app)
    reachable = True
    for finding in check_broker(app):
        reachable &= not (finding.subject == "broker" and finding.level == "error")
        yield finding
    usable = True
    for finding in check_database(app):
        usable &= finding.level != "error"
        yield finding
    if reachable:
        yield check_workers(app)
        if usable:
            yield check_monitor(app, timeout)
