"""Changes of tables that may be somebody else's."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from .. import dialects
from ..failures import brief

logger = logging.getLogger(__name__)


def try_change(connection: Connection, change: Any, *arguments: Any) -> None:
    """Call ``change(*arguments)``; where the database refuses it, say so and go on.

    The result table is its owner's, and what is refused is not needed.
    """
    # On MySQL, where each change of a table commits, a savepoint would be gone before its end.
    commits = dialects.of(connection).commits_changes
    try:
        with nullcontext() if commits else connection.begin_nested():
            change(*arguments)
    except DBAPIError as exc:
        logger.warning("celery_taskmeta stays as it is: %s", brief(exc))
