"""``rate-limited-queue top``: what the queue types have, and their rates, live."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from . import operations
from .blocking import BlockingStore
from .errors import StoreUnavailable
from .operations import Metrics

#: Seconds between two looks.
INTERVAL = 1.0


@dataclass
class Top:
    """Looks at the store, and remembers the look before for the rates.

    Args:
        store: where to look.
    """

    store: BlockingStore
    _before: dict[str, Metrics] = field(default_factory=dict)
    _at: float = 0.0

    def run(self, console: Console) -> None:
        """Show it until Ctrl-C; goes on after outages of the store."""
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                live.update(self.look(), refresh=True)
                time.sleep(INTERVAL)

    def look(self) -> RenderableType:
        """Return the table of now, or what is wrong."""
        try:
            found = {
                queue_type: self.store.run(operations.metrics(queue_type))
                for queue_type in self.store.types()
            }
        except StoreUnavailable as error:
            return Text(str(error), "red")
        now = time.monotonic()
        table = Table(box=None, padding=(0, 1))
        table.add_column("type")
        for name in (
            *("queue ids", "due", "waiting", "active", "dead"),
            *("enq/s", "deq/s", "fin/s"),
        ):
            table.add_column(name, justify="right")
        for queue_type, metrics in found.items():
            numbers = (
                *(metrics.ready, metrics.due, metrics.totals.get("w", 0)),
                *(metrics.active, metrics.dead),
            )
            rates = [self._rate(queue_type, metrics, kind, now) for kind in ("e", "d", "f")]
            table.add_row(queue_type, *(f"{number:,}" for number in numbers), *rates)
        self._before, self._at = found, now
        return table if found else Text("No queue type has any job.")

    def _rate(self, queue_type: str, metrics: Metrics, kind: str, now: float) -> str:
        if queue_type in self._before:
            difference = metrics.totals.get(kind, 0) - self._before[queue_type].totals.get(kind, 0)
            rate = max(0, difference) / (now - self._at)
        else:  # The last whole minute, for the first look.
            counts = {"e": metrics.enqueued, "d": metrics.dequeued}.get(kind)
            if counts is None:
                return ""
            rate = counts[-2] / 60
        return f"{rate:,.1f}"
