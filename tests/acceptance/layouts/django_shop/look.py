"""What a user of the models and of the admin sees, asserted; the test runs it as a process."""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django.setup()

from datetime import datetime, timedelta, timezone  # noqa: E402

from django.contrib.auth.models import User  # noqa: E402
from django.db import connections, models  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext, setup_test_environment  # noqa: E402

from cadasta.workertoolbox import Ledger, LedgerError  # noqa: E402
from cadasta.workertoolbox.django import ledger_alias  # noqa: E402
from cadasta.workertoolbox.django.models import Attempt, Result, Task  # noqa: E402
from cadasta.workertoolbox.messages.decoding import TaskRecord  # noqa: E402

URL = os.environ.get("SHOP_LEDGER", os.environ["SHOP_DATABASE"])
NOW = datetime.now(timezone.utc)


def record(number: int, name: str, parent: str | None = None) -> TaskRecord:
    return TaskRecord(
        task_id=f"task-{number}",
        name=name,
        queue="orders",
        root_id="task-1",
        parent_id=parent,
        args=f'[{number},"***"]',
        kwargs='{"card":"***"}',
        published_at=NOW - timedelta(seconds=100 - number),
    )


with Ledger(URL) as ledger:
    ledger.record(
        [
            record(1, "orders.pay"),
            record(2, "orders.pay", "task-1"),
            record(3, "mail.send", "task-1"),
            *(record(number, "mail.bulk") for number in range(4, 64)),
        ]
    )

connection = connections[ledger_alias()]
with connection.cursor() as cursor:
    for number, (status, result, traceback) in enumerate(
        [
            ("SUCCESS", '"order 1 is paid"', None),
            (
                "FAILURE",
                '{"exc_type": "ValueError", "exc_message": ["<b>no card</b>"]}',
                "Traceback\nValueError: <b>no card</b>",
            ),
        ],
        1,
    ):
        cursor.execute(
            "INSERT INTO celery_taskmeta (id, task_id, status, result, traceback, date_done,"
            " date_started, runtime, worker) VALUES (%s, %s, %s, %s, %s, %s, %s, 1.5, 'here')",
            [
                number,
                f"task-{number}",
                status,
                result.encode(),
                traceback,
                NOW.replace(tzinfo=None),
                NOW.replace(tzinfo=None),
            ],
        )
    cursor.execute(
        "INSERT INTO celery_task_attempt (task_id, place, retries, state, ended_at, error)"
        " VALUES ('task-2', 0, 0, 'RETRY', %s, 'ValueError: try again')",
        [NOW],
    )

# The ORM agrees with the ledger.
with Ledger(URL) as ledger:
    for state in ("SUCCESS", "FAILURE", "PENDING", "RETRY"):
        ours = {task.task_id for task in ledger.find(state=state, limit=100)}
        theirs = set(Task.objects.filter(state=state).values_list("task_id", flat=True))
        assert ours == theirs, (state, ours, theirs)
    for number in (1, 2, 3):
        task_id = f"task-{number}"
        assert Task.objects.get(pk=task_id).as_ledger_task() == ledger.get(task_id)
assert [t.pk for t in Task.objects.filter(state="FAILURE", name__startswith="orders.")] == [
    "task-2"
]
assert Task.objects.exclude(state="FAILURE").count() == 62
assert Task.objects.filter(state__in=["PENDING", "FAILURE"]).count() == 62
assert dict(Task.objects.values_list("state").annotate(n=models.Count("pk")).order_by("state")) == {
    "FAILURE": 1,
    "PENDING": 61,
    "SUCCESS": 1,
}
assert Result.objects.get(task="task-1").value == "order 1 is paid"
assert Attempt.objects.filter(task="task-2").count() == 1
assert {t.pk for t in Task.objects.get(pk="task-1").children.all()} == {"task-2", "task-3"}
assert Task.objects.get(pk="task-2").parent.state == "SUCCESS"
for write in (
    Task.objects.get(pk="task-1").save,
    Task.objects.get(pk="task-1").delete,
    Task.objects.all().delete,
    lambda: Task.objects.update(name="x"),
    lambda: Task.objects.create(task_id="x"),
):
    try:
        write()
    except LedgerError:
        continue
    raise AssertionError(f"{write} wrote")

# The admin.
setup_test_environment()
User.objects.create_superuser("root", password="root")
User.objects.create_user("staff", password="staff", is_staff=True)
client = Client()
assert client.login(username="root", password="root")
LIST = "/admin/workertoolbox/task/"
with CaptureQueriesContext(connection) as queries:
    page = client.get(LIST)
assert page.status_code == 200, page.content[:2000]
assert not any("COUNT(" in query["sql"] for query in queries), [q["sql"] for q in queries]
assert len(page.context["cl"].result_list) == 50
assert b"Older" in page.content and b"Newest" not in page.content
older = page.context["cl"].older
second = client.get(LIST + older)
assert len(second.context["cl"].result_list) == 13 and b"Newest" in second.content
for query, count in {
    "?state=FAILURE": 1,
    "?state=FAILURE&name=orders.pay&queue=orders&published=1h": 1,
    "?q=task-3": 1,
    "?q=PAY": 2,
    "?q=nothing": 0,
}.items():
    shown = client.get(LIST + query)
    assert shown.status_code == 200 and len(shown.context["cl"].result_list) == count, query
one = client.get(f"{LIST}task-2/change/".replace("task-2", "task-2")).content.decode()
for text in ("&lt;b&gt;no card&lt;/b&gt;", "try again", "task-1", "***", "mail.send"):
    assert text in one, text
assert "<b>no card" not in one
assert client.get(f"{LIST}add/").status_code == 403
assert client.post(f"{LIST}task-2/delete/").status_code == 403
assert client.post(f"{LIST}task-2/change/", {"name": "x"}).status_code == 403
other = Client()
assert other.login(username="staff", password="staff")
assert other.get(LIST).status_code == 403
print("all seen")
