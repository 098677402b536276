"""The ledger in Django's admin: tasks by state, name, queue and time, and each with all of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import ShowFacets
from django.contrib.admin.utils import quote
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from ..ledger.model import CHORD_UNLOCK, IGNORED, PENDING
from ..ledger.workflow import build_workflow
from ..plain.json_text import harmless
from .changelist import TaskChangeList, UncountedPaginator
from .databases import LABEL
from .models import Task, Undecodable
from .values import readable

STATES = (PENDING, "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED", IGNORED)
#: Shown for a task that no worker will begin any more.
EXPIRED = "EXPIRED"
#: Names, or queues, that a filter offers; the search knows all.
MOST_CHOICES = 50
#: Tasks of a workflow that a page shows.
MOST_MEMBERS = 500
_NOTHING = "-"


class StateFilter(admin.SimpleListFilter):
    """By a state, as the ledger computes it."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        state = self.value()
        return queryset.filter(state=state) if state else queryset


class _IndexedFilter(admin.SimpleListFilter):
    """The values of an indexed column, found by leaps through the index."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        name = str(self.parameter_name)
        offered = Task.objects.all().distinct_values(name, MOST_CHOICES)
        chosen = request.GET.get(name)
        if chosen and chosen not in offered:
            offered.insert(0, chosen)
        return [(value, value) for value in offered]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(**{str(self.parameter_name): value}) if value else queryset


class NameFilter(_IndexedFilter):
    """By a task's name."""

    title = "name"
    parameter_name = "name"


class QueueFilter(_IndexedFilter):
    """By the queue that a task was published to."""

    title = "queue"
    parameter_name = "queue"


class TimeFilter(admin.SimpleListFilter):
    """By the age of the first publication."""

    title = "published"
    parameter_name = "published"
    ages = {
        "1h": ("in the last hour", timedelta(hours=1)),
        "24h": ("in the last 24 hours", timedelta(days=1)),
        "7d": ("in the last 7 days", timedelta(days=7)),
        "30d": ("in the last 30 days", timedelta(days=30)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, text) for value, (text, _) in self.ages.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        age = self.ages.get(self.value() or "")
        return queryset.filter(published_at__gte=timezone.now() - age[1]) if age else queryset


class _ViewOnly:
    """Nobody adds, changes or deletes; who may view is Django's own question."""

    actions = None
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    paginator = UncountedPaginator

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Task)
class TaskAdmin(_ViewOnly, admin.ModelAdmin):
    """The tasks, newest first, and the page of each."""

    change_list_template = "workertoolbox/change_list.html"
    change_form_template = "workertoolbox/change_form.html"
    list_display = ("state_shown", "name_shown", "queue", "published", "waited", "ran", "error")
    list_display_links = ("name_shown",)
    list_filter = (StateFilter, TimeFilter, NameFilter, QueueFilter)
    list_per_page = 50
    sortable_by = ()
    search_fields = ("task_id", "name")
    search_help_text = "An id or its beginning, or a part of a name"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    *("state_shown", "name", "task_id", "queue", "worker", "published"),
                    *("last_published", "due", "started", "ended", "waited", "ran"),
                )
            },
        ),
        ("Arguments", {"fields": ("arguments", "keyword_arguments")}),
        ("Outcome", {"fields": ("result_shown", "traceback_shown", "attempts_shown")}),
        ("Workflow", {"fields": ("parent_shown", "children_shown", "workflow_shown")}),
        (
            "Message",
            {
                "classes": ("collapse",),
                "fields": (
                    *("root_id", "group_id", "origin", "priority", "expires", "retries"),
                    *("replacements", "publications", "time_limit", "soft_time_limit"),
                    *("ignore_result", "headers_shown", "stamps_shown", "properties_shown"),
                    "recorded",
                ),
            },
        ),
    )

    class Media:
        css = {"all": ("workertoolbox/ledger.css",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[TaskChangeList]:
        return TaskChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        return queryset.search(search_term), False

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Task | None:
        found: Any = self.get_queryset(request).select_related("outcome")
        task: Task | None = found.filter(pk=object_id).first()
        return task

    # -- what a row and a page show ---------------------------------------------------------------

    @admin.display(description="state")
    def state_shown(self, task: Task) -> SafeString:
        state = EXPIRED if task.as_ledger_task().has_expired else task.state
        return format_html('<span class="ledger-state ledger-{}">{}</span>', state.lower(), state)

    @admin.display(description="task")
    def name_shown(self, task: Task) -> SafeString:
        return format_html(
            '{}<span class="ledger-id" title="{}">{}</span>',
            task.name,
            task.task_id,
            task.task_id[:8],
        )

    @admin.display(description="published")
    def published(self, task: Task) -> str:
        return _moment(task.published_at)

    @admin.display(description="last published")
    def last_published(self, task: Task) -> str:
        return _moment(task.last_published_at)

    @admin.display(description="due")
    def due(self, task: Task) -> str:
        return _moment(task.as_ledger_task().due_at)

    @admin.display(description="started")
    def started(self, task: Task) -> str:
        return _moment(task.as_ledger_task().date_started)

    @admin.display(description="ended")
    def ended(self, task: Task) -> str:
        found = task.as_ledger_task()
        return _moment(found.date_done) if found.is_final else _NOTHING

    @admin.display(description="recorded")
    def recorded(self, task: Task) -> str:
        return _moment(task.recorded_at)

    @admin.display(description="worker")
    def worker(self, task: Task) -> str:
        return task.as_ledger_task().worker or _NOTHING

    @admin.display(description="waited")
    def waited(self, task: Task) -> str:
        return _seconds(task.as_ledger_task().waited)

    @admin.display(description="ran")
    def ran(self, task: Task) -> str:
        return _seconds(task.as_ledger_task().ran)

    @admin.display(description="error")
    def error(self, task: Any) -> SafeString | str:
        if task.state not in ("FAILURE", "RETRY", "REVOKED"):
            return ""
        lines = (task.end_of_traceback or "").strip().splitlines()
        return format_html('<span class="ledger-error">{}</span>', lines[-1]) if lines else ""

    @admin.display(description="arguments")
    def arguments(self, task: Task) -> SafeString | str:
        return _arguments(task.args, task.args_repr)

    @admin.display(description="by name")
    def keyword_arguments(self, task: Task) -> SafeString | str:
        return _arguments(task.kwargs, task.kwargs_repr)

    @admin.display(description="result")
    def result_shown(self, task: Task) -> SafeString | str:
        if not task.has_outcome or task.state in ("STARTED", PENDING):
            return _NOTHING
        if task.ignore_result and task.result is None:
            return "ignored: it is not stored"
        return _code(readable(task.result))

    @admin.display(description="traceback")
    def traceback_shown(self, task: Task) -> SafeString | str:
        text = task.outcome.traceback if task.has_outcome else None
        return _code(harmless(text)) if text else _NOTHING

    @admin.display(description="earlier attempts")
    def attempts_shown(self, task: Task) -> SafeString | str:
        rows = [
            (
                attempt.retries,
                attempt.state.lower(),
                attempt.state,
                _moment(attempt.started_at),
                _seconds(attempt.runtime),
                attempt.worker or "",
                attempt.error or "",
            )
            for attempt in task.attempts.all()
        ]
        if not rows:
            return "none"
        return format_html(
            '<table class="ledger-table"><thead><tr><th>retries<th>state<th>started<th>ran'
            "<th>worker<th>error</thead>{}</table>",
            format_html_join(
                "",
                '<tr><td>{}<td><span class="ledger-state ledger-{}">{}</span><td>{}<td>{}<td>{}'
                "<td>{}</tr>",
                rows,
            ),
        )

    @admin.display(description="parent")
    def parent_shown(self, task: Task) -> SafeString | str:
        if not task.parent_id:
            return _NOTHING
        parent = Task.objects.filter(pk=task.parent_id).first()
        return _link(parent) if parent else f"{task.parent_id} (not in the ledger)"

    @admin.display(description="children")
    def children_shown(self, task: Task) -> SafeString | str:
        children = _slim(task.children.order_by("published_at", "task_id"))[: MOST_MEMBERS + 1]
        return _list(list(children))

    @admin.display(description="tree")
    def workflow_shown(self, task: Task) -> SafeString | str:
        root_id = task.root_id or task.task_id
        found = _slim(Task.objects.all().workflow(root_id).order_by("published_at", "task_id"))
        members = list(found[: MOST_MEMBERS + 1])
        if len([one for one in members if one.name != CHORD_UNLOCK]) < 2:
            return "a task of its own"
        is_cut = len(members) > MOST_MEMBERS
        members = members[:MOST_MEMBERS]
        by_id = {one.task_id: one for one in members}
        workflow = build_workflow([one.as_ledger_task() for one in members], root_id)
        if workflow is None:
            return _NOTHING
        lines = [
            (
                f"{min(depth, 30) * 1.5:g}",
                " ledger-here" if node.task.task_id == task.task_id else "",
                _link(by_id[node.task.task_id]),
            )
            for depth, node in workflow.root.walk()
        ]
        tree = format_html_join(
            "", '<li style="margin-left: {}em" class="ledger-node{}">{}</li>', lines
        )
        more = f"The first {MOST_MEMBERS} tasks; there are more." if is_cut else ""
        return format_html('<ul class="ledger-tree">{}</ul>{}', tree, more)

    @admin.display(description="headers")
    def headers_shown(self, task: Task) -> SafeString | str:
        return _code(readable(task.headers)) if task.headers else _NOTHING

    @admin.display(description="stamps")
    def stamps_shown(self, task: Task) -> SafeString | str:
        return _code(readable(task.stamps)) if task.stamps else _NOTHING

    @admin.display(description="properties")
    def properties_shown(self, task: Task) -> SafeString | str:
        return _code(readable(task.properties)) if task.properties else _NOTHING


@admin.register(Undecodable)
class UndecodableAdmin(_ViewOnly, admin.ModelAdmin):
    """Messages of the monitor queue that could not be read."""

    change_form_template = "workertoolbox/change_form.html"
    list_display = ("received_at", "queue", "error")
    list_display_links = ("received_at",)
    sortable_by = ()
    fields = (
        *("error", "received_at", "queue", "routing_key", "content_type", "content_encoding"),
        *("headers", "properties", "body_shown", "body_size", "digest"),
    )

    def get_paginator(self, *args: Any, **kwargs: Any) -> Any:
        # Few: its index is read alone, and a count is cheap.
        return admin.ModelAdmin.paginator(*args[1:], **kwargs)

    @admin.display(description="body")
    def body_shown(self, message: Undecodable) -> SafeString | str:
        if message.body is None:
            return _NOTHING
        return _code(harmless(bytes(message.body).decode("utf-8", "replace")))


def _slim(tasks: Any) -> Any:
    """What a line of a tree needs."""
    return tasks.only(
        *("task_id", "name", "root_id", "parent", "published_at", "last_published_at", "eta"),
        *("expires", "ignore_result"),
    )


def _link(task: Task) -> SafeString:
    return format_html(
        '<span class="ledger-state ledger-{}">{}</span> <a href="{}">{}</a>'
        ' <span class="ledger-id">{}</span>',
        task.state.lower(),
        task.state,
        reverse(f"admin:{LABEL}_task_change", args=(quote(task.task_id),)),
        task.name,
        task.task_id[:8],
    )


def _list(tasks: list[Task]) -> SafeString | str:
    if not tasks:
        return "none"
    lines = format_html_join("", "<li>{}</li>", ((_link(one),) for one in tasks[:MOST_MEMBERS]))
    more = f"The first {MOST_MEMBERS}; there are more." if len(tasks) > MOST_MEMBERS else ""
    return format_html('<ul class="ledger-tree">{}</ul>{}', lines, more)


def _arguments(value: Any, shortened: str | None) -> SafeString | str:
    if value is not None:
        return _code(readable(value))
    if shortened:
        return format_html("{} <em>(too large to be stored whole)</em>", _code(harmless(shortened)))
    return "not stored"


def _code(text: str) -> SafeString:
    return format_html('<pre class="ledger-code">{}</pre>', text)


def _moment(value: datetime | None) -> str:
    if value is None:
        return _NOTHING
    local = timezone.localtime(value)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d}"


def _seconds(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:.3f} s" if value < 100 else f"{value:,.0f} s"
