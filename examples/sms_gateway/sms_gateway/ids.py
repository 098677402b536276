"""Identifiers that follow from what they name, so that doing a step again names the same thing.

Whatever is posted, delivered or run twice has one task id, one message id and one place in the
ledger. Pure functions.
"""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "sms-gateway.cadasta.org")


def text_id(provider: str, request_id: str) -> str:
    """The task id of an inbound text: the root of its conversation's tree."""
    return _made(f"text\0{provider}\0{request_id}")


def keyword_id(root: str) -> str:
    """The task id of the keyword's handler for the text ``root``."""
    return _made(f"keyword\0{root}")


def reply_message_id(root: str) -> str:
    """The message id (32 characters) of the reply to the text ``root``."""
    return uuid.UUID(_made(f"reply\0{root}")).hex


def broadcast_id(key: str) -> str:
    """The id of the broadcast that a client asked for under its own key."""
    return _made(f"broadcast\0{key}")


def chunk_id(broadcast: str, after: int) -> str:
    """The task id of the part of a broadcast that begins after a subscription."""
    return _made(f"chunk\0{broadcast}\0{after}")


def broadcast_message_id(broadcast: str, subscriber: int) -> str:
    """The message id (32 characters) of a broadcast's text to one subscriber."""
    return uuid.UUID(_made(f"text\0{broadcast}\0{subscriber}")).hex


def send_id(message_id: str) -> str:
    """The task id of the sending of a message."""
    return _made(f"send\0{message_id}")


def receipt_id(provider: str, message: str, status: str) -> str:
    """The task id of a delivery receipt: one for each message and status."""
    return _made(f"receipt\0{provider}\0{message}\0{status}")


def _made(name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, name))
