"""The ledger's tables as models: read, never written."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from django.db import connections, models
from django.db.models import F, Func, Q
from django.utils.functional import cached_property

from ..errors import LedgerError
from ..ledger import model as ledger
from ..plain.json_text import load
from ..results.stored_values import describe_error
from .databases import LABEL
from .fields import MomentField, StoredJSONField
from .state import State

#: States whose result is an exception.
_EXCEPTION_STATES = frozenset({"FAILURE", "RETRY", "REVOKED"})
_ID_PREFIX = re.compile(r"[0-9A-Fa-f][0-9A-Fa-f-]{3,35}\Z")


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise LedgerError(
        "The ledger's models are only read: the monitor writes tasks, workers write results, and "
        "`celery -A proj ledger prune` deletes."
    )


class ReadOnlyQuerySet(models.QuerySet[Any]):
    """Refuses whatever would write."""

    create = update = delete = bulk_create = bulk_update = get_or_create = update_or_create = (
        _refuse
    )
    acreate = aupdate = adelete = abulk_create = abulk_update = aget_or_create = (
        aupdate_or_create
    ) = _refuse
    _raw_delete = _refuse


class TaskQuerySet(ReadOnlyQuerySet):
    """Questions that need an index of the ledger to be asked in its way."""

    def workflow(self, root_id: str) -> Any:
        """Return the tasks of the workflow whose first task is ``root_id``, that one included."""
        # In two parts, since the index on the root leaves out tasks that are their own.
        others = Func(
            F("root_id"),
            F("task_id"),
            template="%(expressions)s",
            arg_joiner=" <> ",
            output_field=models.BooleanField(),
        )
        return self.filter(Q(task_id=root_id) | Q(others, root_id=root_id))

    def search(self, text: str) -> Any:
        """Return the tasks of this id, or whose id or name begins so, or whose name contains it."""
        text = text.strip()
        if not text:
            return self.all()
        wanted = Q(task_id=text)
        if _ID_PREFIX.match(text):
            # A range, since the index has the database's collation, by which LIKE cannot search;
            # no digit and no hyphen comes after "g" in any.
            wanted |= Q(task_id__gte=text, task_id__lt=f"{text}g", task_id__startswith=text)
        names = [name for name in self.distinct_values("name") if text.lower() in name.lower()]
        return self.filter(wanted | Q(name__in=names) if names else wanted)

    def distinct_values(self, field: str, limit: int = 1000) -> list[str]:
        """Return the values of ``name`` or ``queue`` in order, by leaps through its index.

        ``DISTINCT`` would read the whole table.
        """
        if field not in ("name", "queue"):
            raise LedgerError(f"{field!r} has no index of its own: give 'name' or 'queue'.")
        connection = connections[self.db]
        table = connection.ops.quote_name(self.model._meta.db_table)
        statement = (
            f"WITH RECURSIVE leaps (found) AS (SELECT MIN({field}) FROM {table} UNION ALL"  # noqa: S608 - the names above
            f" SELECT (SELECT MIN(later.{field}) FROM {table} later WHERE later.{field} > found)"
            " FROM leaps WHERE found IS NOT NULL)"
            " SELECT found FROM leaps WHERE found IS NOT NULL LIMIT %s"
        )
        with connection.cursor() as cursor:
            cursor.execute(statement, [limit])
            return [row[0] for row in cursor.fetchall()]


_TaskManager: Any = models.Manager.from_queryset(TaskQuerySet)


class TaskManager(_TaskManager):
    """Gives each task its ``state``, which can be filtered by as a column can."""

    def get_queryset(self) -> TaskQuerySet:
        found: TaskQuerySet = super().get_queryset().annotate(state=State())
        return found


class ReadOnlyModel(models.Model):
    """A row of a table that Django neither makes nor writes."""

    objects: Any = models.Manager.from_queryset(ReadOnlyQuerySet)()

    class Meta:
        abstract = True

    def save(self, *_: Any, **__: Any) -> None:
        _refuse()

    def delete(self, *_: Any, **__: Any) -> Any:
        _refuse()


class Task(ReadOnlyModel):
    """A task that was scheduled; with ``state``, and ``outcome`` where it has a result.

    ``Task.objects.filter(state="FAILURE", name__startswith="export.")``
    """

    task_id = models.CharField("id", max_length=155, primary_key=True)
    name = models.CharField(max_length=255)
    queue = models.CharField(max_length=255, null=True)
    root_id = models.CharField("root", max_length=155, null=True)
    parent = models.ForeignKey(
        "self",
        models.DO_NOTHING,
        db_column="parent_id",
        db_constraint=False,
        null=True,
        related_name="children",
    )
    group_id = models.CharField("group", max_length=155, null=True)
    args = StoredJSONField(null=True)
    kwargs = StoredJSONField(null=True)
    args_repr = models.TextField(null=True)
    kwargs_repr = models.TextField(null=True)
    args_truncated = models.BooleanField()
    eta = models.DateTimeField("ETA", null=True)
    expires = models.DateTimeField(null=True)
    retries = models.IntegerField()
    replacements = models.IntegerField()
    publications = models.IntegerField()
    origin = models.CharField(max_length=255, null=True)
    priority = models.IntegerField(null=True)
    time_limit = models.FloatField(null=True)
    soft_time_limit = models.FloatField(null=True)
    ignore_result = models.BooleanField()
    stamps = StoredJSONField(null=True)
    headers = models.JSONField(null=True)
    properties = StoredJSONField(null=True)
    published_at = models.DateTimeField("published")
    last_published_at = models.DateTimeField("last published")
    recorded_at = models.DateTimeField("recorded")

    objects: Any = TaskManager()

    class Meta:
        managed = False
        app_label = LABEL
        db_table = "celery_task"
        base_manager_name = "objects"
        default_permissions = ("view",)
        ordering = ("-published_at", "-task_id")

    def __str__(self) -> str:
        return f"{self.name} {self.task_id}"

    @cached_property
    def state(self) -> str:
        """``PENDING`` where nobody has told of it; the manager gives it with the row."""
        return str(Task.objects.values_list("state", flat=True).get(pk=self.pk))

    @property
    def has_outcome(self) -> bool:
        """Whether there is an ``outcome``."""
        return hasattr(self, "outcome")

    @property
    def result(self) -> Any:
        """The result's value; for an exception a text such as ``ValueError: no such file``."""
        return self.outcome.value if self.has_outcome else None

    def as_ledger_task(self) -> ledger.Task:
        """Return it as :class:`cadasta.workertoolbox.Ledger` would; what is deferred is None."""
        deferred = self.get_deferred_fields()
        fields: dict[str, Any] = {
            field.attname: None if field.attname in deferred else getattr(self, field.attname)
            for field in self._meta.concrete_fields
        }
        for key in ("stamps", "headers", "properties"):
            fields[key] = fields[key] or {}
        outcome = self.outcome.fields() if self.has_outcome else {}
        return ledger.Task(**fields, **{**outcome, "state": self.state})


class Result(ReadOnlyModel):
    """What came of a task: a row of Celery's result table."""

    id = models.AutoField(primary_key=True)
    task = models.OneToOneField(
        Task,
        models.DO_NOTHING,
        db_column="task_id",
        db_constraint=False,
        related_name="outcome",
    )
    status = models.CharField(max_length=50, null=True)
    payload = models.BinaryField(db_column="result", null=True)
    date_done = MomentField(null=True)
    traceback = models.TextField(null=True)
    worker = models.CharField(max_length=155, null=True)
    date_started = MomentField(null=True)
    runtime = models.FloatField(null=True)

    class Meta:
        managed = False
        app_label = LABEL
        db_table = "celery_taskmeta"
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.status} {self.task_id}"

    @property
    def value(self) -> Any:
        """The value; for an exception a text such as ``ValueError: no such file``."""
        value = load(None if self.payload is None else bytes(self.payload))
        is_error = isinstance(value, dict) and {"exc_type", "exc_message"} <= value.keys()
        return describe_error(value) if is_error and self.status in _EXCEPTION_STATES else value

    def fields(self) -> dict[str, Any]:
        """Return what :class:`.ledger.model.Task` has of it; what is deferred is None."""
        deferred = self.get_deferred_fields()
        names = ("traceback", "worker", "date_done", "date_started", "runtime")
        known = {name: None if name in deferred else getattr(self, name) for name in names}
        return {**known, "result": None if "payload" in deferred else self.value}


class Attempt(ReadOnlyModel):
    """One run of a task that was retried."""

    pk = models.CompositePrimaryKey("task_id", "place")
    task = models.ForeignKey(
        Task,
        models.DO_NOTHING,
        db_column="task_id",
        db_constraint=False,
        related_name="attempts",
    )
    place = models.IntegerField()
    retries = models.IntegerField()
    state = models.CharField(max_length=50)
    worker = models.CharField(max_length=155, null=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField()
    runtime = models.FloatField(null=True)
    error = models.TextField(null=True)

    class Meta:
        managed = False
        app_label = LABEL
        db_table = "celery_task_attempt"
        default_permissions = ("view",)
        ordering = ("retries", "ended_at", "place")

    def __str__(self) -> str:
        return f"{self.state} {self.task_id}, {self.retries} retries before it"


class Undecodable(ReadOnlyModel):
    """A message of the monitor queue that could not be read, as it came."""

    id = models.BigAutoField(primary_key=True)
    digest = models.CharField(max_length=64)
    received_at = models.DateTimeField("received")
    queue = models.CharField(max_length=255, null=True)
    routing_key = models.CharField(max_length=255, null=True)
    error = models.TextField()
    content_type = models.CharField(max_length=255, null=True)
    content_encoding = models.CharField(max_length=255, null=True)
    headers = models.TextField(null=True)
    properties = models.TextField(null=True)
    body = models.BinaryField(null=True)
    body_size = models.IntegerField()

    class Meta:
        managed = False
        app_label = LABEL
        db_table = "celery_task_undecodable"
        default_permissions = ("view",)
        ordering = ("-received_at",)
        verbose_name = "undecodable message"

    def __str__(self) -> str:
        return f"{self.error} ({self.digest[:8]})"
