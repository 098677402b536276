"""How many agents there are: they are asked, for as long as somebody wants to know."""

from __future__ import annotations

import logging
import threading
import time

from celery import Celery

logger = logging.getLogger(__name__)

#: Seconds between two questions.
INTERVAL = 3.0
#: Seconds that agents have to answer.
PATIENCE = 1.0
#: Seconds after which nobody wants to know any more.
INTEREST = 30.0


class Agents:
    """Counts the agents' processes that answer Celery's remote control.

    Args:
        app: of a process that may publish.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._wanted = threading.Event()
        self._wanted_until = 0.0
        self._closed = False
        self._count: int | None = None
        self._thread = threading.Thread(target=self._run, name="agents", daemon=True)

    def start(self) -> None:
        """Begin. Without, and on a broker without remote control (Amazon SQS), none is known."""
        if self._app.conf.worker_enable_remote_control:
            self._thread.start()

    def close(self) -> None:
        """Ask no more."""
        self._closed = True
        self._wanted.set()

    def count(self) -> int | None:
        """How many answered last; None: not known (yet), or the broker is away."""
        self._wanted_until = time.monotonic() + INTEREST
        self._wanted.set()
        return self._count

    def _run(self) -> None:
        while not self._closed:
            self._wanted.wait()
            self._count = self._ask()
            if time.monotonic() > self._wanted_until:
                self._wanted.clear()
                self._count = None
            time.sleep(INTERVAL)

    def _ask(self) -> int | None:
        try:
            answers = self._app.control.broadcast("ping", reply=True, timeout=PATIENCE)
        except Exception as error:  # Any: each broker's client has errors of its own
            logger.debug("The agents were not counted: %s", type(error).__name__)
            return None
        names = [str(name) for answer in answers or [] for name in answer]
        return sum(name.startswith("agent-") for name in names)
