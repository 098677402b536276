"""The queue ``message``: store a text and hand it to its keyword."""

from __future__ import annotations

from typing import Any

from .. import ids
from ..celery import app
from ..keywords import asks_to_end, help_words, keywords, list_of_keywords
from ..optout import ends_with_stop_all, is_plain
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
    text = parse_text(posted.message, posted.opt_out, keywords())
    word = find_keyword(text)
    handler = answer_without_keyword if word is None else None
    if word is not None and asks_to_end(keywords()[word], text):
        handler = keywords()[word].answer  # at once: a keyword's queue may be long, or stand still
    reply = None
    with database().transaction() as connection:
        stored = inbound.store(connection, provider, posted, word)
        if handler is not None:
            reply = inbound.answer(connection, stored.id, handler)
    root = ids.text_id(provider, posted.request_id)
    if reply is not None:
        publish_reply(reply)
    if handler is None and not stored.is_handled:
        publish_next(f"{word}.handle", [stored.id], ids.keyword_id(root))
    return {"inbound_id": stored.id, "keyword": word, "repeated": not stored.is_new}


def find_keyword(text: Text) -> str | None:
    """The keyword that a text is for; None for none, as for one that ends everything."""
    keyword = keywords().get(text.word)
    if keyword is None or text.opt_out == "stop":
        return None
    is_for_all = asks_to_end(keyword, text) and ends_with_stop_all(text.message)
    return None if is_for_all else text.word


def answer_without_keyword(text: Text, subscriber: StoredSubscriber) -> str | None:
    """The reply to a text that is for no keyword; None where the provider has answered it."""
    if text.request == "stop":
        subscriber.unsubscribe_all()
        undo = "Text START to undo that."
        if not is_plain(text.message):
            undo = f"If you did not mean that, text START, or one of: {help_words()}"
        reply = f"You are unsubscribed from everything and will get no more texts from us. {undo}"
    elif text.request == "start":
        words = subscriber.resubscribe()
        names = ", ".join(word.upper() for word in words)
        reply = f"You are subscribed to {names}. Text STOP to end." if words else list_of_keywords()
    elif text.request == "help":
        reply = f"Text one of: {help_words()}. Text STOP to get no more texts from us."
    else:
        return list_of_keywords()
    return None if text.opt_out else reply
