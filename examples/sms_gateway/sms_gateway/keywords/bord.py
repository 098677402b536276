"""The sample keyword: a message board that people subscribe to by text."""

from __future__ import annotations

from ..texts import Text
from . import Keyword, Subscriber


class Bord(Keyword):
    """``bord on`` subscribes, ``bord off`` unsubscribes, ``bord help`` explains."""

    word = "bord"
    help_text = "BORD sends you the news of the board. Text BORD ON to subscribe, BORD OFF to end."

    def on(self, text: Text, subscriber: Subscriber) -> str:
        """Subscribe."""
        if subscriber.subscribe(self.word):
            return "You are subscribed to BORD. Text BORD OFF to end."
        return "You are subscribed to BORD already. Text BORD OFF to end."

    def off(self, text: Text, subscriber: Subscriber) -> str:
        """Unsubscribe."""
        if subscriber.unsubscribe(self.word):
            return "You are not subscribed to BORD any more. Text BORD ON to come back."
        return "You are not subscribed to BORD. Text BORD ON to subscribe."
