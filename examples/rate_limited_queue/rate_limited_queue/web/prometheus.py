"""What the store has, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..operations import Metrics

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_FAMILIES: list[tuple[str, str, str, Callable[[Metrics], int]]] = [
    ("waiting_jobs", "gauge", "Jobs that wait", lambda m: m.totals.get("w", 0)),
    ("active_jobs", "gauge", "Jobs with a lease", lambda m: m.active),
    ("dead_jobs", "gauge", "Dead jobs that are kept", lambda m: m.dead),
    ("queue_ids", "gauge", "Queue ids that have waiting jobs", lambda m: m.ready),
    ("due_queue_ids", "gauge", "Queue ids that may release a job now", lambda m: m.due),
    ("enqueued_total", "counter", "Jobs enqueued", lambda m: m.totals.get("e", 0)),
    ("dequeued_total", "counter", "Deliveries", lambda m: m.totals.get("d", 0)),
    ("finished_total", "counter", "Jobs finished", lambda m: m.totals.get("f", 0)),
    ("requeued_total", "counter", "Jobs requeued", lambda m: m.totals.get("r", 0)),
    ("discarded_total", "counter", "Jobs that died", lambda m: m.totals.get("x", 0)),
]


def exposition(types: Mapping[str, Metrics], waiting_requests: int) -> str:
    """Return the page: each metric of each queue type, and the long polls of this process."""
    lines = []
    for name, kind, help_text, value in _FAMILIES:
        full = f"rate_limited_queue_{name}"
        lines += [f"# HELP {full} {help_text}, by queue type.", f"# TYPE {full} {kind}"]
        lines += [f'{full}{{type="{t}"}} {max(0, value(m))}' for t, m in types.items()]
    full = "rate_limited_queue_waiting_requests"
    lines += [
        f"# HELP {full} Requests of this process that wait for a job.",
        f"# TYPE {full} gauge",
    ]
    lines.append(f"{full} {waiting_requests}")
    return "\n".join(lines) + "\n"
