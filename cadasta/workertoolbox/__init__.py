"""Cadasta Worker Toolbox: every Celery task that is ever scheduled, in your SQL database.

>>> from celery import Celery
>>> from cadasta.workertoolbox import Config
>>> app = Celery("exporter")
>>> app.config_from_object(Config.local(queues=["export"]))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conf.adopt import adopt as adopt
    from .conf.config import Config as Config
    from .conf.doubts import ConfigWarning as ConfigWarning
    from .errors import ConfigError as ConfigError
    from .errors import LedgerError as LedgerError
    from .errors import ResultError as ResultError
    from .errors import ToolboxError as ToolboxError
    from .errors import TopologyError as TopologyError
    from .errors import UnconfirmedError as UnconfirmedError
    from .ledger.ledger import Ledger as Ledger
    from .ledger.query import Query as Query
    from .testing.functional import build_functional_tests as build_functional_tests
    from .worker.followups import extract_followups as extract_followups
    from .worker.setup import setup_app as setup_app

__version__ = "0.7.0"

#: Loaded at first use: a producer should not pay for SQLAlchemy.
_HOMES = {
    "Config": "conf.config",
    "ConfigError": "errors",
    "ConfigWarning": "conf.doubts",
    "Ledger": "ledger.ledger",
    "LedgerError": "errors",
    "Query": "ledger.query",
    "ResultError": "errors",
    "ToolboxError": "errors",
    "TopologyError": "errors",
    "UnconfirmedError": "errors",
    "adopt": "conf.adopt",
    "build_functional_tests": "testing.functional",
    "extract_followups": "worker.followups",
    "setup_app": "worker.setup",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
