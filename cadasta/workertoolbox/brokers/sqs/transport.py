"""kombu's transport to Amazon SQS, whose every request has an end.

botocore waits a minute for a host, another for its answer, and tries five times: ``delay()`` would
take twenty minutes to raise, and a worker as long to acknowledge one task. Here a request ends
after ``connect_timeout`` and ``read_timeout`` seconds, twice, and kombu publishes four times at
most. The transport option ``client-config`` wins over each of :data:`CLIENT_CONFIG`.
"""

from __future__ import annotations

from typing import Any

from botocore.config import Config
from kombu.transport import SQS

#: botocore's settings. A long poll of SQS takes 20 seconds, so that none may end before.
CLIENT_CONFIG: dict[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 25,
    "retries": {"total_max_attempts": 2, "mode": "standard"},
}


class Channel(SQS.Channel):
    """A channel whose clients do not wait for long."""

    def _new_boto_client(self, *args: Any, config: Any = None, **kwargs: Any) -> Any:
        given = self.transport_options.get("client-config") or {}
        bounded = Config(**{**CLIENT_CONFIG, **given})
        if config is not None:  # kombu's own, for one purpose
            bounded = bounded.merge(config)
        return super()._new_boto_client(*args, config=bounded, **kwargs)


class Transport(SQS.Transport):
    """For ``sqs://``."""

    Channel = Channel
