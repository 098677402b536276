"""Amazon SQS: a message that a client holds stays hidden, and is shown again by a request.

kombu puts a message back by sending a copy of it; the first one comes back as well when its time
is over, and a consumer has it twice. Here the time is set to none.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from .base import Delivery, Receive, UnreadableError
from .virtual import VirtualSource

#: Each look is a request that is paid for: seconds between two of them, at most.
LONGEST_PAUSE = 1.0


class SqsSource(VirtualSource):
    """Extends the time of what clients hold, as long as they hold it (Amazon: 12 hours at most)."""

    longest_pause = LONGEST_PAUSE
    refusals = (ClientError,)

    def __init__(self, app: Any, receive: Receive) -> None:
        super().__init__(app, receive)
        self._held: dict[str, Any] = {}  # delivery tag -> message
        self._hidden = 0

    def open(self) -> None:
        self._held.clear()
        super().open()
        self.errors = (*self.errors, BotoCoreError, ClientError)
        self._hidden = max(1, int(self.channel.visibility_timeout))
        self._renewal_due = 0.0

    def close(self) -> None:
        for message in list(self._held.values()):
            with suppress(*self.errors):
                self._show(message)
        self._held.clear()
        super().close()

    def take(self, queue: str) -> Any:
        try:
            message = super().take(queue)
        except self.errors:
            raise
        except Exception as error:
            # Any: whatever a stranger has put there. As in discard().
            raise UnreadableError(error) from None
        if message is not None:
            self._held[message.delivery_tag] = message
            # Or kombu would send a copy of it when the channel is closed.
            self.channel.qos.ack(message.delivery_tag)
        return message

    def give_up(self, delivery: Delivery, requeue: bool) -> None:
        message = delivery.message
        del self._held[message.delivery_tag]
        if requeue:
            self._show(message)
        else:
            self._delete(message)

    def discard(self, delivery: Delivery) -> None:
        # Left to the queue's redrive policy, if it has one.
        del self._held[delivery.message.delivery_tag]
        self.add(delivery.topic)

    def recover(self) -> None:
        if monotonic() < self._renewal_due:
            return
        self._renewal_due = monotonic() + self._hidden / 3
        for message in self._held.values():
            self._change(message, self._hidden)

    def _show(self, message: Any) -> None:
        self._change(message, 0)

    def _change(self, message: Any, seconds: int) -> None:
        with suppress(ClientError):  # its time was over: another may have it
            self.channel.sqs().change_message_visibility(
                **_address(message), VisibilityTimeout=seconds
            )

    def _delete(self, message: Any) -> None:
        self.channel.sqs().delete_message(**_address(message))


def _address(message: Any) -> dict[str, str]:
    info = message.delivery_info
    return {
        "QueueUrl": info["sqs_queue"],
        "ReceiptHandle": info["sqs_message"]["ReceiptHandle"],
    }
