"""The forms that Chikka posts. Pure functions."""

from __future__ import annotations

import time


def chikka_text(
    request_id: str, mobile_number: str, message: str, shortcode: str = "2929"
) -> dict[str, str]:
    """A text from a subscriber, sent now."""
    return {
        "message_type": "incoming",
        "mobile_number": mobile_number,
        "shortcode": shortcode,
        "request_id": request_id,
        "message": message,
        "timestamp": f"{time.time():.2f}",
    }


def chikka_receipt(
    message_id: str, status: str = "SENT", shortcode: str = "2929"
) -> dict[str, str]:
    """A delivery receipt, of now."""
    return {
        "message_type": "outgoing",
        "shortcode": shortcode,
        "message_id": message_id,
        "status": status,
        "credits_cost": "1.00",
        "timestamp": f"{time.time():.2f}",
    }
