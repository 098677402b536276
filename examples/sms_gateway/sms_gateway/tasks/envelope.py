"""What the api tells the workers of a request, as JSON, and back. Pure functions."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any

from ..providers import Inbound, Receipt


def pack_inbound(text: Inbound) -> dict[str, Any]:
    """A text as JSON."""
    packed = {**vars(text), "posted": dict(text.posted)}
    packed["sent_at"] = text.sent_at and text.sent_at.isoformat()
    packed["received_at"] = text.received_at.isoformat()
    return packed


def unpack_inbound(packed: dict[str, Any]) -> Inbound:
    """A text from JSON."""
    times = {
        name: datetime.fromisoformat(packed[name])
        for name in ("sent_at", "received_at")
        if packed.get(name)  # those that an older version has queued have no "received_at"
    }
    return Inbound(**{**packed, **times})


def pack_receipt(receipt: Receipt) -> dict[str, Any]:
    """A receipt as JSON."""
    cost = receipt.credits_cost
    packed = asdict(receipt)
    return {
        **packed,
        "posted": dict(receipt.posted),
        "at": receipt.at.isoformat(),
        "credits_cost": None if cost is None else str(cost),
    }


def unpack_receipt(packed: dict[str, Any]) -> Receipt:
    """A receipt from JSON."""
    cost = packed["credits_cost"]
    return Receipt(
        **{
            **packed,
            "at": datetime.fromisoformat(packed["at"]),
            "credits_cost": None if cost is None else Decimal(cost),
        }
    )
