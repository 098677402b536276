"""The Celery app: ``celery -A sms_gateway worker -Q message``."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup

app = Celery(
    "sms_gateway",
    include=[
        f"sms_gateway.tasks.{name}"
        for name in ("message", "keyword", "reply", "notification", "broadcast")
    ],
)
# By name: the environment is read when a setting is first asked for, not at this import.
app.config_from_object("sms_gateway.celeryconfig:config")


@celeryd_after_setup.connect
def check_provider(instance: Any = None, **_: Any) -> None:
    """Refuse to start a worker that sends texts and cannot."""
    if "reply" not in instance.app.amqp.queues.consume_from:
        return
    from .errors import SettingsError  # a producer needs none of it
    from .runtime import provider

    try:
        provider().check()
    except SettingsError as error:
        # Celery logs what a receiver raises and goes on; this it lets pass.
        raise SystemExit(f"sms_gateway: {error}") from None
