"""A Celery app whose tasks are under a limit for each customer. Copy it, and make it yours.

python shop.py submits five mails to each of three customers: one a second for each of them.
"""

from __future__ import annotations

import os

from celery import Celery
from rate_limited_queue import limit_for, submit

from cadasta.workertoolbox import Config

#: With CELERY_BROKER_URL a real broker and database, else files in .workertoolbox.
QUEUES = ["mail"]

app = Celery("shop", task_cls="rate_limited_queue:LimitedTask")
if "CELERY_BROKER_URL" in os.environ:
    app.config_from_object(Config(queues=QUEUES, DURABLE=True))
else:
    app.config_from_object(Config.local(queues=QUEUES, DURABLE=True))


@app.task(name="mail.send")
def send(customer: str, text: str) -> str:
    """Stand for what may be done once a second for each customer."""
    return f"{customer}: {text}"


def main() -> None:
    """Submit the mails."""
    for number in range(5):
        for customer in ("ada", "grace", "linus"):
            submit(send, [customer, f"mail {number}"], queue_id=customer, interval=1000)
    # The limit can be changed at any time; a change counts from the last release.
    limit_for("ada").interval = 250
    print("15 mails are submitted. See: celery -A shop tasks")


if __name__ == "__main__":
    main()
