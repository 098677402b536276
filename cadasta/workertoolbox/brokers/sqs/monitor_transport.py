"""How the monitor takes messages from Amazon SQS: hidden for its own short time.

The queue's visibility timeout has to be longer than the longest task. A message that a killed
monitor held would come back only then, so the monitor asks for its own with each request.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from . import transport as sqs_transport

#: The most messages that one request to SQS deletes.
DELETE_BATCH = 10


class Channel(sqs_transport.Channel):
    """A channel whose messages are hidden for ``monitor_visibility_timeout`` seconds."""

    def _receive_message(
        self, queue: str, max_number_of_messages: int = 1, wait_time_seconds: int | None = None
    ) -> Any:
        return self.sqs(queue=self.canonical_queue_name(queue)).receive_message(
            QueueUrl=self._new_queue(queue),
            MaxNumberOfMessages=max_number_of_messages,
            WaitTimeSeconds=wait_time_seconds or self.wait_time_seconds,
            VisibilityTimeout=self.transport_options["monitor_visibility_timeout"],
        )

    def basic_ack_many(self, tags: list[str]) -> None:
        """Acknowledge ``tags``, ten a request."""
        for start in range(0, len(tags), DELETE_BATCH):
            part = tags[start : start + DELETE_BATCH]
            infos = [self.qos.get(tag).delivery_info for tag in part]
            entries = [
                {"Id": str(number), "ReceiptHandle": info["sqs_message"]["ReceiptHandle"]}
                for number, info in enumerate(infos)
            ]
            queue = self.canonical_queue_name(self._active_queues[0])
            # What SQS cannot delete comes again, and is recorded again without a second row.
            self.sqs(queue=queue).delete_message_batch(
                QueueUrl=infos[0]["sqs_queue"], Entries=entries
            )
            for tag in part:
                self.qos.ack(tag)


class Transport(sqs_transport.Transport):
    """The transport of the monitor's connection to Amazon SQS."""

    Channel = Channel
    # kombu leaves out what SQS itself answers: throttled, out of order, credentials expired.
    connection_errors = (*sqs_transport.Transport.connection_errors, ClientError)
