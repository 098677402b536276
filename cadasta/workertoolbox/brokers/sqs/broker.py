"""Amazon SQS, as the toolbox sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kombu import Queue

from ...errors import ConfigError
from ...plain.defaults import Default
from ..broker import QueueAttributes
from ..visibility import (
    MONITOR_VISIBILITY_TIMEOUT,
    VISIBILITY_MARGIN,
    HidingBroker,
    longest_run,
)
from . import names as queue_names

#: The longest visibility timeout of Amazon SQS: 12 hours, in seconds.
MAX_VISIBILITY_TIMEOUT = 43_200
#: Bytes of a message that Amazon SQS takes; kombu encodes the body twice in base64.
MESSAGE_BYTES = 1_048_576
OVERHEAD = 1.78
#: Transport options that Amazon SQS alone has.
_OWN_OPTIONS = frozenset({"region", "queue_name_prefix", "predefined_queues", "wait_time_seconds"})
#: Variables by which boto3 finds credentials, a region or a server.
_OWN_VARIABLES = (
    *("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN"),
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"),
)


class SqsBroker(HidingBroker):
    """Amazon SQS: bindings are in each process's memory, and there is no fan-out."""

    title = "SQS"
    # No request of the toolbox's is without end.
    transports = {"sqs": "toolbox-sqs"}
    transport_classes = {"toolbox-sqs": "sqs.transport:Transport"}
    settings = {
        "worker_enable_remote_control": Default(False, "Amazon SQS has no fan-out."),
        "worker_send_task_events": Default(
            False, "Amazon SQS has no fan-out; the ledger needs none."
        ),
        "task_send_sent_event": Default(False, "Amazon SQS has no fan-out; the ledger needs none."),
    }
    has_message_groups = True
    has_remote_control = False
    remedy = (
        "name AWS credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role), "
        "and check their rights, the region and the network"
    )

    def unnamed_url(
        self, own: Mapping[str, Any], settings: Mapping[str, Any], environ: Mapping[str, str]
    ) -> str | None:
        """With settings of its own: boto3 finds the host and the credentials."""
        options = settings.get("broker_transport_options") or {}
        transport = str(settings.get("broker_transport")).lower()
        is_meant = (
            own.get("QUEUE_PREFIX")
            or _OWN_OPTIONS & options.keys()
            or transport in {*self.transports, *self.transport_classes}
            or any(environ.get(name) for name in _OWN_VARIABLES)
        )
        return "sqs://" if is_meant else None

    def transport_options(
        self, own: Mapping[str, Any], settings: Mapping[str, Any], environ: Mapping[str, str]
    ) -> dict[str, Any]:
        """Region, prefix of the names, long polls, and a visibility timeout above each task's time.

        Raises:
            ConfigError: a time limit or the ETA horizon is above the 12 hours of Amazon SQS.
        """
        longest = longest_run(own, settings)
        if longest + VISIBILITY_MARGIN > MAX_VISIBILITY_TIMEOUT:
            raise ConfigError(
                f"a time limit or ETA_HORIZON of {longest:.0f} seconds: Amazon SQS hides a message "
                f"for {MAX_VISIBILITY_TIMEOUT} seconds at most and would hand the task out again. "
                f"Split the task, or use another broker."
            )
        given = settings.get("broker_transport_options") or {}
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-west-2"
        options = {
            **super().transport_options(own, settings, environ),
            "region": region,
            "wait_time_seconds": 20,
        }
        if own["QUEUE_PREFIX"] and not given.get("predefined_queues"):
            options["queue_name_prefix"] = f"{own['QUEUE_PREFIX']}-"
        return options

    def require_queue_names(self, names: Iterable[str], options: Mapping[str, Any]) -> None:
        """Refuse names that are too long or one on SQS, and incomplete ``predefined_queues``."""
        names = list(names)
        prefix = options.get("queue_name_prefix", "")
        queue_names.require_distinct(names, prefix)
        if options.get("predefined_queues"):
            queue_names.require_listed(names, options["predefined_queues"], prefix)

    def attributes(self, connection: Any, queue: Queue) -> QueueAttributes:
        """What SQS tells of a queue that is there."""
        channel = connection.default_channel
        predefined = channel.predefined_queues
        if predefined and not queue_names.is_listed(queue.name, predefined):
            return QueueAttributes(is_listed=False)
        told = channel.sqs().get_queue_attributes(
            QueueUrl=channel._new_queue(queue.name), AttributeNames=["All"]
        )["Attributes"]
        return QueueAttributes(
            is_listed=True,
            is_fifo=told.get("FifoQueue") == "true",
            # kombu gives the settings' to queues that it makes; of a predefined one its own counts.
            visibility_timeout=int(told.get("VisibilityTimeout", 30)) if predefined else None,
            arguments_bytes=int(int(told.get("MaximumMessageSize", MESSAGE_BYTES)) / OVERHEAD),
        )

    def monitor_transport(self, connection: Any) -> type:
        """One that hides messages for the monitor's own time."""
        from .monitor_transport import Transport  # boto3 takes a second

        return Transport

    def monitor_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """A short visibility timeout; a long poll would hold a batch back for its 20 seconds."""
        return {
            "wait_time_seconds": 1,
            "monitor_visibility_timeout": MONITOR_VISIBILITY_TIMEOUT,
        }

    def acknowledge(self, channel: Any, tags: list[Any]) -> None:
        """Ten a request."""
        channel.basic_ack_many(tags)
