"""A process that only schedules tasks. It never calls setup_app and consumes nothing."""

from __future__ import annotations

import json
import sys
from typing import Any

from celery import chain, chord, group
from proj import add, app, double, fail, replace, retry, spawn, total, unlisted


def everything(tasks: int) -> dict[str, Any]:
    """Schedule each kind of thing once, and ``tasks`` plain tasks on two queues."""
    for number in range(tasks // 2):
        add.delay(number, number)
        double.delay(number)
    chained = chain(add.s(1, 2), add.s(3), double.s()).apply_async()
    grouped = group(add.s(i, i) for i in range(5)).apply_async()
    joined = chord([add.s(i, 1) for i in range(4)], total.s()).apply_async()
    return {
        "chain": chained.id,
        "chain_root": chained.parent.parent.id,
        "group": [child.id for child in grouped],
        "chord": joined.id,
        "chord_header": [child.id for child in joined.parent],
        "spawn": spawn.delay(3).id,
        "retry": retry.delay(2).id,
        "fail": fail.delay("as it should").id,
        "replace": replace.delay(4).id,
        "countdown": add.apply_async((7, 7), countdown=2, headers={"creator_id": 5}).id,
        "queue": double.apply_async((8,), queue="export").id,
        "send_task": app.send_task("export.add", (9, 9), is_result=True).id,
        "unlisted": unlisted.delay(10).id,
        "expires": add.apply_async((11, 11), expires=600).id,
    }


def many(tasks: int) -> dict[str, Any]:
    """Schedule ``tasks`` plain tasks."""
    for number in range(tasks):
        add.delay(number, 0)
    return {}


if __name__ == "__main__":
    print(json.dumps({"everything": everything, "many": many}[sys.argv[1]](int(sys.argv[2]))))
