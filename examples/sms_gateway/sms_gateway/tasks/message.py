"""The queue ``message``: store a text and hand it to its keyword."""

from __future__ import annotations

from typing import Any

from .. import ids
from ..celery import app
from ..keywords import keywords, list_of_keywords
from ..publishing import publish_next
from ..runtime import database
from ..store import inbound
from ..store.subscribers import StoredSubscriber
from ..texts import Text, parse_text
from .base import Step
from .envelope import unpack_inbound
from .reply import publish_reply


@app.task(base=Step, name="message.receive")
def receive(provider: str, packed: dict[str, Any]) -> dict[str, Any]:
    """Store a text; answer it here where it has no keyword, else pass it on.

    Args:
        provider: who it came from.
        packed: the text, as :func:`~.envelope.pack_inbound` gives it.
    """
    posted = unpack_inbound(packed)
    text = parse_text(posted.message)
    word = text.word if text.word in keywords() else None
    reply = None
    with database().transaction() as connection:
        stored = inbound.store(connection, provider, posted, word)
        if word is None:
            reply = inbound.answer(connection, stored.id, answer_without_keyword)
    root = ids.text_id(provider, posted.request_id)
    if reply is not None:
        publish_reply(reply)
    if word is not None and not stored.is_handled:
        publish_next(f"{word}.handle", [stored.id], ids.keyword_id(root))
    return {"inbound_id": stored.id, "keyword": word, "repeated": not stored.is_new}


def answer_without_keyword(text: Text, subscriber: StoredSubscriber) -> str:
    """The reply to a text that is for no keyword."""
    if text.is_stop:
        subscriber.unsubscribe_all()
        return "You are unsubscribed from everything and will get no more texts from us."
    return list_of_keywords()
