"""Where Celery's result tables are: their names and schemas, as an app's settings say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from sqlalchemy import MetaData, Table
from sqlalchemy.sql import quoted_name

from .tables import attempt, taskmeta, tasksetmeta


@dataclass(frozen=True, slots=True)
class ResultTables:
    """The names and schemas of the result tables; a schema of None is the default one.

    Attributes:
        task, task_schema: of the table of results. Attempts are in the same schema.
        group, group_schema: of the table of group results.
    """

    task: str = taskmeta.name
    task_schema: str | None = None
    group: str = tasksetmeta.name
    group_schema: str | None = None

    @classmethod
    def from_conf(cls, conf: Mapping[str, Any]) -> ResultTables:
        """What ``database_table_names`` and ``database_table_schemas`` of an app say."""
        names = conf.get("database_table_names") or {}
        schemas = conf.get("database_table_schemas") or {}
        return cls(
            names.get("task") or taskmeta.name,
            schemas.get("task"),
            names.get("group") or tasksetmeta.name,
            schemas.get("group"),
        )

    @property
    def are_celerys(self) -> bool:
        """Whether they have Celery's own names, in the default schema, as the migrations do."""
        return self == ResultTables()

    def translated(self, schemas: Mapping[str | None, str | None]) -> ResultTables:
        """Where they are by SQLAlchemy's ``schema_translate_map``."""
        return replace(
            self,
            task_schema=schemas.get(self.task_schema, self.task_schema),
            group_schema=schemas.get(self.group_schema, self.group_schema),
        )

    def task_table(self) -> Table:
        """The table of results."""
        return _renamed(taskmeta, self.task, self.task_schema)

    def group_table(self) -> Table:
        """The table of group results."""
        return _renamed(tasksetmeta, self.group, self.group_schema)

    def attempt_table(self) -> Table:
        """The table of attempts."""
        return _renamed(attempt, attempt.name, self.task_schema)


def _renamed(table: Table, name: str, schema: str | None) -> Table:
    copy = table.to_metadata(MetaData(), schema=cast(Any, schema), name=name)
    for index in copy.indexes:
        # PostgreSQL and SQLite have one index of a name, whatever its table.
        index.name = quoted_name(str(index.name).replace(table.name, copy.name), None)
    return copy
