"""The queues of the keywords: have a text answered."""

from __future__ import annotations

from typing import Any

from ..celery import app
from ..database import TRANSIENT
from ..keywords import keywords
from ..publishing import again
from ..runtime import database
from ..store import inbound
from .base import Step, back_off
from .reply import publish_reply

#: How often a text is given to a handler that raises.
ATTEMPTS = 6


def handle(self: Any, inbound_id: int) -> dict[str, Any]:
    """Have a text answered by its keyword, once.

    What a handler changes and its reply are one transaction. A handler that raises gets the text
    again, with growing waits; after :data:`ATTEMPTS` the task fails and the text stays unanswered,
    where ``python -m sms_gateway requeue`` finds it once the handler is mended.
    """
    word = self.name.partition(".")[0]
    try:
        with database().transaction() as connection:
            reply = inbound.answer(connection, inbound_id, keywords()[word].answer)
    except TRANSIENT:
        raise
    except Exception as error:
        if self.request.retries + 1 >= ATTEMPTS:
            raise
        raise again(self, back_off(self.request.retries, 1.0, 60.0)) from error
    if reply is not None:
        publish_reply(reply)
    return {"inbound_id": inbound_id, "message_id": reply}


for _word in keywords():
    app.task(base=Step, bind=True, name=f"{_word}.handle")(handle)
