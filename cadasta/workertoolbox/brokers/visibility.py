"""How long a broker hides a message that it has handed out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError

#: Seconds that a message stays hidden after it was handed out, on Redis, SQS and the embedded
#: broker. kombu's defaults are 3,600 and 1,800.
VISIBILITY_TIMEOUT = 3600
#: Seconds added to the longest time limit or ETA, for the work around a task.
VISIBILITY_MARGIN = 60
#: The longest visibility timeout of Amazon SQS: 12 hours, in seconds.
SQS_MAX_VISIBILITY_TIMEOUT = 43_200


def visibility_timeout(kind: str, own: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    """Seconds that a message stays hidden: above each known time limit and ETA.

    A shorter one hands a task out again while it runs or waits.
    """
    longest = longest_run(own, settings)
    needed = longest + VISIBILITY_MARGIN if longest else 0
    if kind == "sqs" and needed > SQS_MAX_VISIBILITY_TIMEOUT:
        raise ConfigError(
            f"a time limit or ETA_HORIZON of {longest:.0f} seconds: Amazon SQS hides a message for "
            f"{SQS_MAX_VISIBILITY_TIMEOUT} seconds at most and would hand the task out again. "
            f"Split the task, or use another broker."
        )
    return int(max(VISIBILITY_TIMEOUT, needed))


def longest_run(own: Mapping[str, Any], settings: Mapping[str, Any]) -> float:
    """The longest time, in seconds, that a task may hold its message, as far as it is known."""
    limits = (settings.get("task_time_limit"), settings.get("task_soft_time_limit"))
    return max(float(limit or 0) for limit in (*limits, own["ETA_HORIZON"]))
