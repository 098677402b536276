"""The admin's list by pages that begin where the one before ended: no count, no offset."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.db.models.functions import Right
from django.http import HttpRequest

from .models import Task

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
#: The list's columns; arguments and results, which may be large, are for the task's own page.
_SHOWN = (
    *("task_id", "name", "queue", "published_at", "last_published_at", "eta", "expires"),
    *("ignore_result", "retries", "outcome__status", "outcome__worker", "outcome__date_started"),
    *("outcome__date_done", "outcome__runtime", "outcome__task"),
)
#: Characters of a traceback's end, where its error is.
_ERROR_LENGTH = 300


class UncountedPaginator(Paginator):
    """Never counts: on a table of millions that would be the slowest thing on a page."""

    @property
    def count(self) -> int:
        return 0


class TaskChangeList(ChangeList):
    """Newest first; ``p`` names the task after which the page begins."""

    #: Where there is a next page: its query string.
    older: str | None = None
    #: Where this is not the first one: that one's query string.
    newest: str | None = None

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        found: Any = super().get_queryset(request, exclude_parameters)
        error = Right("outcome__traceback", _ERROR_LENGTH)
        listed: QuerySet[Any] = found.select_related("outcome").only(*_SHOWN)
        return listed.annotate(end_of_traceback=error)

    def get_results(self, request: HttpRequest) -> None:
        page = self.queryset
        place = read_place(request.GET.get(PAGE_VAR, ""))
        if place is not None:
            moment, task_id = place
            # Not as one comparison of two pairs: MySQL would not use the index for it.
            page = page.filter(published_at__lte=moment)
            page = page.filter(Q(published_at__lt=moment) | Q(task_id__lt=task_id))
            self.newest = self.get_query_string()
        rows = list(page[: self.list_per_page + 1])
        self.result_list = rows[: self.list_per_page]
        if len(rows) > self.list_per_page:
            self.older = self.get_query_string({PAGE_VAR: place_of(rows[self.list_per_page - 1])})
        # What Django's own templates ask for; equal numbers make them say nothing of a total.
        self.result_count = self.full_result_count = len(self.result_list)
        self.show_full_result_count = self.show_admin_actions = False
        self.can_show_all = self.multi_page = False
        self.paginator = UncountedPaginator(rows, self.list_per_page)


def place_of(task: Task) -> str:
    """Return the text that names a task's place in the list."""
    return f"{(task.published_at - _EPOCH) // _MICROSECOND}.{task.task_id}"


def read_place(text: str) -> tuple[datetime, str] | None:
    """Return the publication time and the id of such a text; None where it is none."""
    moment, dot, task_id = text.partition(".")
    try:
        return (_EPOCH + int(moment) * _MICROSECOND, task_id) if dot else None
    except (ValueError, OverflowError):
        return None
