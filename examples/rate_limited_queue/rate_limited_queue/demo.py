"""``rate-limited-queue demo``: a server, 50 customers at different rates, and workers, live."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .client import Client
from .processes import running_server

CUSTOMERS = 50
WORKERS = 8
#: Intervals that customers have, in ms.
INTERVALS = (100, 200, 250, 400, 500, 800, 1000, 1500, 2000, 3000)


@dataclass
class Customer:
    """A queue id, and the releases that workers saw of it, by the store's clock in µs."""

    name: str
    interval: int
    releases: list[int] = field(default_factory=list)

    @property
    def least_gap(self) -> float | None:
        """The shortest time between two releases in ms; None before the second."""
        found = sorted(self.releases)
        gaps = [b - a for a, b in zip(found, found[1:], strict=False)]
        return min(gaps) / 1000 if gaps else None


def run(seconds: float, console: Console) -> int:
    """Run the demonstration for so many seconds; 0 if no release was early, else 1."""
    chance = random.Random(7)  # noqa: S311
    customers = {
        f"customer-{number:02}": Customer(f"customer-{number:02}", chance.choice(INTERVALS))
        for number in range(CUSTOMERS)
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        console.print("A server with a private Redis starts ...")
        environ = {"RLQ_REDIS_DIRECTORY": str(folder), "RLQ_SHARQ_JOB_REQUEUE_INTERVAL": "200"}
        with running_server(folder, environ) as url:
            total = fill(url, customers, seconds)
            console.print(
                f"{total} messages of {CUSTOMERS} customers wait at {url}. {WORKERS} workers ask "
                "for the next one that is due, of any customer."
            )
            over = threading.Event()
            workers = [
                threading.Thread(target=work, args=(url, customers, over)) for _ in range(WORKERS)
            ]
            started = time.monotonic()
            for worker in workers:
                worker.start()
            with Live(console=console, refresh_per_second=5) as live:
                while (passed := time.monotonic() - started) < seconds:
                    live.update(picture(customers, passed, console))
                    time.sleep(0.2)
                over.set()
                for worker in workers:
                    worker.join()
                live.update(picture(customers, seconds, console))
            if not console.is_terminal:
                console.print()
    return verdict(customers, console)


def fill(url: str, customers: dict[str, Customer], seconds: float) -> int:
    """Enqueue more for each customer than can be released; how many jobs."""
    total = 0
    with Client(url) as client:
        for customer in customers.values():
            jobs = [
                {
                    "queue_id": customer.name,
                    "job_id": str(number),
                    "interval": customer.interval,
                    "payload": {"text": f"Hello {number}"},
                }
                for number in range(min(1000, int(seconds * 1000 / customer.interval) + 5))
            ]
            client.call("POST", "/enqueue/sms/", jobs)
            total += len(jobs)
    return total


def work(url: str, customers: dict[str, Customer], over: threading.Event) -> None:
    """Take and finish jobs, as a worker of any language would."""
    with Client(url) as client:
        while not over.is_set():
            try:
                status, job = client.dequeue("sms", wait=0.5)
                if status == 200:
                    customers[job["queue_id"]].releases.append(int(job["token"]))
                    client.finish("sms", job["queue_id"], job["job_id"], job["token"])
            except (OSError, HTTPException):
                if not over.is_set():
                    raise


def allowed(customers: list[Customer], interval: int) -> int:
    """The most releases that an interval (ms) allows, up to the last release of all customers.

    Both ends are moments of the store's clock, like what is compared with it: by any other clock,
    or up to any other moment, a limit that is kept to the microsecond would look broken.
    """
    moments = [moment for one in customers for moment in one.releases]
    return 1 + (max(moments) - min(moments)) // (1000 * interval) if moments else 1


def picture(customers: dict[str, Customer], passed: float, console: Console) -> Group:
    """The state of the customers, as many as fit: releases against what the limit allows."""
    tables = []
    # Workers go on meanwhile: all of the picture is of one moment.
    everyone = [replace(one, releases=list(one.releases)) for one in customers.values()]
    parts = 2 if console.width >= 116 else 1
    rows = CUSTOMERS // parts
    if console.is_terminal:
        rows = max(1, min(rows, console.height - 4))
    for part in range(parts):
        table = Table(box=None, padding=(0, 1))
        for name in ("customer", "interval", "releases of allowed", "least gap"):
            table.add_column(name, justify="left" if name.startswith(("c", "r")) else "right")
        for customer in everyone[part * rows : (part + 1) * rows]:
            most = allowed(everyone, customer.interval)
            done = len(customer.releases)
            filled = min(10, round(10 * done / most))
            bar = Text("█" * filled + "░" * (10 - filled), "green" if done <= most else "red")
            gap = customer.least_gap
            style = "red" if gap is not None and gap < customer.interval else ""
            table.add_row(
                customer.name,
                f"{customer.interval:,} ms",
                bar + Text(f" {done:>3} of {most}", ""),
                Text("" if gap is None else f"{gap:,.1f} ms", style),
            )
        tables.append(table)
    total = sum(len(customer.releases) for customer in everyone)
    rate = total / passed if passed else 0
    hidden = len(everyone) - parts * rows
    more = f"; {hidden} customers more than fit here" if hidden else ""
    return Group(Columns(tables), Text(f"{total} releases, {rate:.0f} a second{more}"))


def verdict(customers: dict[str, Customer], console: Console) -> int:
    """Say how it went; the exit code."""
    early = [
        customer
        for customer in customers.values()
        if customer.least_gap is not None and customer.least_gap < customer.interval
    ]
    total = sum(len(customer.releases) for customer in customers.values())
    if early or not total:
        console.print(f"[red]Early: {', '.join(one.name for one in early) or 'no release at all'}")
        return 1
    console.print(
        f"[green]{total} releases, and not one came before its customer's interval was over,[/]\n"
        "by the clock of the store."
    )
    return 0
