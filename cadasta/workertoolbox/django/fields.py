"""Columns of the ledger that Django's own fields would read otherwise."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from django.db import models

from ..plain.json_text import load


class MomentField(models.DateTimeField):
    """A column without time zone, which is UTC in Celery's tables."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        if isinstance(value, datetime) and value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc)
        return value

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        value = super().get_db_prep_value(value, connection, prepared)
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.astimezone(timezone.utc).replace(tzinfo=None)
        return value


class StoredJSONField(models.TextField):
    """JSON as the monitor wrote it, read as the ledger reads it: with Celery's dates and UUIDs."""

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        # As text: drivers would parse it by rules of their own.
        return (f"{sql}::text" if compiler.connection.vendor == "postgresql" else sql), params

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return load(value)
