"""The quickstart's app: a small bookshop. All settings are in the line with ``Config``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery

from cadasta.workertoolbox import Config

QUEUES = ["orders", "mail"]

app = Celery("demo")
if os.environ.get("CELERY_BROKER_URL"):
    app.config_from_object(Config(queues=QUEUES))
else:
    app.config_from_object(Config.local(QUEUES, Path(__file__).parent / ".workertoolbox"))


@app.task(name="orders.check")
def check(order: int) -> int:
    time.sleep(0.2)
    return order


@app.task(name="orders.pack")
def pack(order: int) -> str:
    time.sleep(0.2)
    return f"parcel {order}"


@app.task(name="mail.confirm")
def confirm(parcel: str) -> str:
    return f"{parcel} is on its way"


@app.task(name="orders.count")
def count(parcels: list[str]) -> int:
    return len(parcels)


@app.task(name="orders.charge")
def charge(card: str) -> None:
    raise ValueError(f"card {card} was declined")


@app.task(name="mail.newsletter", bind=True, max_retries=3)
def newsletter(self: Any) -> str:
    if self.request.retries < 2:
        raise self.retry(countdown=0.5)
    return f"sent after {self.request.retries} retries"


@app.task(name="orders.import_all")
def import_all(orders: int) -> list[str]:
    """A task that schedules tasks."""
    return [check.delay(order).id for order in range(orders)]
