"""How long a broker hides a message that it has handed out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .broker import Broker

#: Seconds that a message stays hidden after it was handed out, on Redis, SQS and the embedded
#: broker. kombu's defaults are 3,600 and 1,800.
VISIBILITY_TIMEOUT = 3600
#: Seconds added to the longest time limit or ETA, for the work around a task.
VISIBILITY_MARGIN = 60
#: Seconds that the messages are hidden that a monitor holds: what a killed one had is back soon.
MONITOR_VISIBILITY_TIMEOUT = 30


def visibility_timeout(own: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    """Seconds that a message stays hidden: above each known time limit and ETA.

    A shorter one hands a task out again while it runs or waits.
    """
    return int(max(VISIBILITY_TIMEOUT, longest_run(own, settings) + VISIBILITY_MARGIN))


def longest_run(own: Mapping[str, Any], settings: Mapping[str, Any]) -> float:
    """The longest time, in seconds, that a task may hold its message, as far as it is known."""
    limits = (settings.get("task_time_limit"), settings.get("task_soft_time_limit"))
    return max(float(limit or 0) for limit in (*limits, own["ETA_HORIZON"]))


class HidingBroker(Broker):
    """A broker that hides a message while somebody has it, and hands it out again after a time."""

    def transport_options(
        self, own: Mapping[str, Any], settings: Mapping[str, Any], environ: Mapping[str, str]
    ) -> dict[str, Any]:
        """The defaults, and a visibility timeout above each task's time."""
        options = super().transport_options(own, settings, environ)
        return {**options, "visibility_timeout": visibility_timeout(own, settings)}

    def visibility_timeout(self, options: Mapping[str, Any]) -> float:
        """What is set, else kombu's default for most."""
        timeout: float = options.get("visibility_timeout", VISIBILITY_TIMEOUT)
        return timeout

    def monitor_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """A short visibility timeout: what a killed monitor held is back soon."""
        return {"visibility_timeout": MONITOR_VISIBILITY_TIMEOUT}
