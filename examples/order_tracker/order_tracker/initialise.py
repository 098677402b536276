"""Making the tables and the first backlog."""

from __future__ import annotations

from .backlog import NewUnit, add_units, count_units
from .database import Database, utc_now
from .feeding import lock_feed
from .identity import process_name
from .settings import Settings


def initialise(settings: Settings, units: int, add: bool = False) -> tuple[int, int]:
    """Make what tables are missing, and a backlog.

    Args:
        settings: of the database; its bounds, where they are set, are written to it.
        units: how many to add.
        add: add them even where there are units.

    Returns:
        How many were added, and how many were there before.
    """
    database = Database(settings.db_url)
    try:
        database.create_tables(settings.max_queue, settings.stall_timeout)
        with database.write() as connection:
            lock_feed(connection)  # Of two at a time, the second finds the first one's units.
            there = count_units(connection)
            if there and not add:
                return 0, there
            new = (NewUnit() for _ in range(units))
            return len(add_units(connection, new, utc_now(), process_name("init"))), there
    finally:
        database.close()
