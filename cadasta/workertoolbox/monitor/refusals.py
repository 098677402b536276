"""What a broker refuses for good, so that the monitor ends instead of trying for ever."""

from __future__ import annotations

from typing import Any

from ..brokers.failures import is_away
from ..errors import BrokerError
from .writer import shown

#: How many times in a row; a broker that starts may refuse what it will take a little later.
TRIES = 5
#: AMQP's reply codes that no waiting mends, and the remedy of each.
REMEDIES = {
    403: (
        "check the user and the password in broker_url, and its rights to configure, write and "
        "read (`rabbitmqctl list_permissions`)"
    ),
    406: (
        "an exchange or a queue of this name is there with other properties: see `celery check`; "
        "delete it, or give another name (task_default_exchange, PLATFORM_QUEUE_NAME) or the type "
        "that it has (QUEUE_TYPE)"
    ),
    530: (
        "check the virtual host in broker_url, and whether the user may use it "
        "(`rabbitmqctl list_vhosts`, `list_permissions`)"
    ),
}


class Refusals:
    """Counts the refusals in a row."""

    def __init__(self) -> None:
        self._count = 0

    def forget(self) -> None:
        """The broker has taken everything."""
        self._count = 0

    def count(self, exc: BaseException, connection: Any) -> None:
        """Count one error of the broker.

        Raises:
            BrokerError: it was the last refusal that is borne; with the remedy.
        """
        remedy = REMEDIES.get(getattr(exc, "reply_code", 0))
        if remedy is None or is_away(exc):
            self._count = 0
            return
        self._count += 1
        if self._count >= TRIES:
            raise BrokerError(
                f"The broker {connection.shown_uri()} refuses it ({shown(exc)}): {remedy}."
            ) from exc
