"""The queue ``notification``: delivery receipts."""

from __future__ import annotations

from typing import Any

from ..celery import app
from ..publishing import again
from ..runtime import database
from ..store import outbound
from .base import Step, back_off
from .envelope import unpack_receipt

#: How often a receipt for an unknown message is tried: the message's id at the provider may be
#: stored a moment after the receipt has come.
ATTEMPTS = 6


@app.task(base=Step, bind=True, name="notification.receive")
def receive(self: Any, provider: str, packed: dict[str, Any]) -> dict[str, Any]:
    """Note what the provider says of a message.

    Args:
        provider: who it came from.
        packed: the receipt, as :func:`~.envelope.pack_receipt` gives it.
    """
    receipt = unpack_receipt(packed)
    with database().transaction() as connection:
        state = outbound.apply_receipt(connection, provider, receipt)
    if state is None and receipt.message_id is None and self.request.retries + 1 < ATTEMPTS:
        raise again(self, back_off(self.request.retries, 1.0, 30.0))
    return {"message_id": receipt.message_id, "state": state or "unknown message"}
