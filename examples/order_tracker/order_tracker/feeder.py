"""Publishing what the database has given a place, and finding what was left behind."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from celery import Celery
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from .database import Database, utc_now
from .errors import BrokerAwayError
from .feeding import Feeding, is_sweep_due, lock_feed, mark_sent, sweep
from .messages import send_feeding
from .tables import feed

logger = logging.getLogger(__name__)

#: Seconds between two looks for what was left behind.
SWEEP_INTERVAL = 1.0
#: Messages that are noted as sent in one transaction.
NOTED_TOGETHER = 50


class Feeder:
    """Feeds units to the outbox.

    Args:
        app: publishes.
        database: decides.
        box: the leader's queue.
        name: stands in the history as the worker.
    """

    def __init__(self, app: Celery, database: Database, box: str, name: str) -> None:
        self.app = app
        self.database = database
        self.box = box
        self.name = name

    def go(self) -> list[Feeding]:
        """Start the feeding, or wake it; returns what was sent.

        Raises:
            BrokerAwayError: the broker does not take it. The feeding has started; a sweep sends
                the rest when the broker is back.
        """
        with self.database.write() as connection:
            state = lock_feed(connection)
            if not state.going:
                connection.execute(update(feed).values(going=True))
            found = sweep(connection, utc_now(), self.name)
        return self.publish(found)

    def stop(self) -> None:
        """Stop feeding; what is in flight finishes."""
        with self.database.write() as connection:
            lock_feed(connection)
            connection.execute(update(feed).values(going=False))

    def publish(self, feedings: Sequence[Feeding]) -> list[Feeding]:
        """Publish what a committed transaction has given a place, and note it as sent.

        Raises:
            BrokerAwayError: the broker did not take all; a sweep sends the rest again.
        """
        sent: list[Feeding] = []
        noted = 0
        try:
            for one in feedings:
                send_feeding(self.app, self.box, one)
                sent.append(one)
                if len(sent) - noted == NOTED_TOGETHER:
                    self._note(sent[noted:])
                    noted = len(sent)
        finally:
            self._note(sent[noted:])
        return sent

    def _note(self, sent: Sequence[Feeding]) -> None:
        if sent:
            with self.database.write() as connection:
                mark_sent(connection, [one.task_id for one in sent], utc_now())

    def publish_or_leave(self, feedings: Sequence[Feeding]) -> list[Feeding]:
        """As :meth:`publish`, but what fails is left to a sweep; returns what was sent."""
        try:
            return self.publish(feedings)
        except (BrokerAwayError, SQLAlchemyError) as error:
            logger.warning(
                "Of %d units, some were not sent, and will be: %s",
                len(feedings),
                type(error).__name__,
            )
            return []

    def sweep(self) -> list[Feeding]:
        """Send what was left behind, what has stalled, and what there is room for."""
        with self.database.read() as connection:
            if not is_sweep_due(connection, utc_now()):
                return []
        with self.database.write() as connection:
            found = sweep(connection, utc_now(), self.name)
        return self.publish(found)


class Sweeper:
    """Sweeps every second in a thread of its own, until it is stopped."""

    def __init__(self, feeder: Feeder, interval: float = SWEEP_INTERVAL) -> None:
        self._feeder = feeder
        self._interval = interval
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the sweep that is under way."""
        self._stopped.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                found = self._feeder.sweep()
                if found:
                    logger.info("Swept: %d units fed", len(found))
            except Exception as error:  # The database or the broker is away: it goes on after that.
                logger.warning("The sweep failed and will be repeated: %s", type(error).__name__)
