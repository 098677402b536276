"""The rival's inbox: takes the same messages, and tracks nothing."""

from __future__ import annotations

from typing import Any

from order_tracker.identity import process_name
from order_tracker.messages import INBOX_QUEUE, REPORT, make_app
from order_tracker.settings import Settings


def main() -> None:
    """Work until SIGTERM, as ``order-tracker inbox`` does."""
    app = make_app(Settings.from_environ())
    app.task(name=REPORT, shared=False)(report)
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    name = process_name("inbox")
    app.worker_main(["worker", "-Q", INBOX_QUEUE, "-n", name, "-c", "2", "-l", "INFO", *quiet])


def report(**fields: Any) -> list[str]:
    """Do nothing."""
    return [str(fields["status"])]


if __name__ == "__main__":
    main()
