"""A monitor in a thread of the test's own process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cadasta.workertoolbox.monitor.monitor import Monitor


@contextmanager
def monitoring(app: Any, **options: Any) -> Iterator[Monitor]:
    """A monitor that runs, does not end by itself, and is stopped at the end."""
    monitor = Monitor(app, **options)
    monitor.ledger.upgrade()
    thread = threading.Thread(target=monitor.run)
    thread.start()
    try:
        yield monitor
        assert thread.is_alive()
    finally:
        monitor.stop()
        thread.join(10)
        monitor.ledger.close()
    assert not thread.is_alive()
