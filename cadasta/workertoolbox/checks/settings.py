"""What can be wrong with an app's settings, by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..brokers.broker import Broker
from ..brokers.kinds import broker_of_app, require_same_broker
from ..brokers.visibility import longest_run
from ..errors import ConfigError
from .findings import Finding, error, ok, warning


def check_settings(app: Any) -> Iterator[Finding]:
    """What the settings alone tell."""
    try:
        require_same_broker(app.conf)
    except ConfigError as exc:
        yield error("settings", exc, "give broker_url to Config, and nowhere else")
    yield _pickle(app)
    broker = broker_of_app(app)
    longest, whose = longest_hold(app)
    hidden = broker.visibility_timeout(app.conf.broker_transport_options or {})
    if hidden is not None:
        yield _visibility(hidden, longest, whose)
    yield from _impossible(app, broker)
    if broker.consumer_timeout is not None:
        yield _consumer_timeout(broker, broker.consumer_timeout, longest, whose)
    limited = broker.limits_deliveries(app.conf.task_queues or ())
    if app.conf.task_acks_late and limited is not None:
        yield _poison(limited)


def longest_hold(app: Any) -> tuple[float, str]:
    """Return the longest known time, in seconds, that a task holds its message, and whose."""
    found = (
        longest_run(app.conf, app.conf),
        "task_time_limit, task_soft_time_limit or ETA_HORIZON",
    )
    for name, task in app.tasks.items():
        limit = float(max(task.time_limit or 0, task.soft_time_limit or 0))
        if limit > found[0]:
            found = (limit, f"the time limit of {name}")
    return found


def _impossible(app: Any, broker: Broker) -> Iterator[Finding]:
    try:
        broker.require_possible_queues(app.amqp.queues.values())
    except ConfigError as exc:
        yield error("queues", exc, "until then each worker ends with PRECONDITION_FAILED")


def _pickle(app: Any) -> Finding:
    subject = "serializers"
    for setting in ("accept_content", "result_accept_content"):
        content = app.conf.get(setting) or ()
        if any("pickle" in str(kind) for kind in content):
            return error(
                subject,
                f"{setting} accepts pickle: who can write to the broker or the database can run "
                "code in your processes",
                f"leave {setting} to Config, which sets ['json']",
            )
    return ok(subject, "no pickle is accepted")


def _visibility(timeout: float, longest: float, whose: str) -> Finding:
    subject = "visibility timeout"
    if timeout <= longest:
        return error(
            subject,
            f"{timeout:g} s is not above {whose}, {longest:g} s: the broker hands such a task out "
            "again while it runs or waits",
            "raise broker_transport_options['visibility_timeout'], or leave it to Config and set "
            "ETA_HORIZON or task_time_limit",
        )
    return ok(subject, f"{timeout:g} s")


def _consumer_timeout(broker: Broker, timeout: int, longest: float, whose: str) -> Finding:
    subject = f"{broker.title}'s consumer timeout"
    if longest >= timeout:
        return warning(
            subject,
            f"{whose} is {longest:g} s; {broker.title}'s default of {timeout} s closes the "
            "channel of a worker that holds a message for so long",
            "raise consumer_timeout in rabbitmq.conf or by a policy",
        )
    return ok(subject, "no known task holds its message for half an hour")


def _poison(limited: bool) -> Finding:
    subject = "acknowledgement"
    if limited:
        return ok(subject, "late, on quorum queues, which count deliveries")
    return warning(
        subject,
        "late, on queues without a limit of deliveries: a task that kills its worker comes back "
        "for ever",
        "use QUEUE_TYPE='quorum', with a policy that sets delivery-limit and dead-letter-exchange",
    )
