"""What a check finds, and the checks that need nothing but an app's settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ..brokers.kinds import broker_kind, require_same_broker
from ..brokers.visibility import longest_run
from ..errors import ConfigError
from ..plain.urls import mask_url
from ..routing.queues import require_possible_queues

Level = Literal["ok", "warning", "error"]

#: RabbitMQ closes the channel of a consumer that holds a message for longer, in seconds.
#: https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
CONSUMER_TIMEOUT = 1800


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``celery check``."""

    level: Level
    #: What was looked at, such as "queue export".
    subject: str
    #: What was found.
    text: str
    #: What to do; empty where all is well.
    remedy: str = ""


def ok(subject: str, text: str) -> Finding:
    """Return a finding that needs nobody."""
    return Finding("ok", subject, text)


def error(subject: str, exc: BaseException | str, remedy: str) -> Finding:
    """Return a finding that has to be mended; of an exception its first line, without secrets."""
    if isinstance(exc, BaseException):
        lines = str(exc).strip().splitlines() or [""]
        exc = f"{type(exc).__name__}: {lines[0]}"
    return Finding("error", subject, mask_url(exc), remedy)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """Return a finding that somebody should look at."""
    return Finding("warning", subject, text, remedy)


def kind_of(app: Any) -> str:
    """Return ``amqp``, ``sqs``, ``redis``, ``embedded`` or another scheme."""
    return broker_kind(app.conf.broker_read_url or app.conf.broker_url, app.conf.broker_transport)


def check_settings(app: Any) -> Iterator[Finding]:
    """What the settings alone tell."""
    try:
        require_same_broker(app.conf)
    except ConfigError as exc:
        yield error("settings", exc, "give broker_url to Config, and nowhere else")
    yield _pickle(app)
    kind = kind_of(app)
    longest, whose = longest_hold(app)
    if kind in ("redis", "sqs", "embedded"):
        yield _visibility(app, longest, whose)
    if kind == "amqp":
        yield from _impossible(app)
        yield _consumer_timeout(longest, whose)
        if app.conf.task_acks_late:
            yield _poison(app)


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


def _impossible(app: Any) -> Iterator[Finding]:
    try:
        require_possible_queues(app.amqp.queues.values())
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


def _visibility(app: Any, longest: float, whose: str) -> Finding:
    subject = "visibility timeout"
    timeout = (app.conf.broker_transport_options or {}).get("visibility_timeout", 3600)
    if timeout <= longest:
        return error(
            subject,
            f"{timeout:g} s is not above {whose}, {longest:g} s: the broker hands such a task out "
            "again while it runs or waits",
            "raise broker_transport_options['visibility_timeout'], or leave it to Config and set "
            "ETA_HORIZON or task_time_limit",
        )
    return ok(subject, f"{timeout:g} s")


def _consumer_timeout(longest: float, whose: str) -> Finding:
    subject = "RabbitMQ's consumer timeout"
    if longest >= CONSUMER_TIMEOUT:
        return warning(
            subject,
            f"{whose} is {longest:g} s; RabbitMQ's default of {CONSUMER_TIMEOUT} s closes the "
            "channel of a worker that holds a message for so long",
            "raise consumer_timeout in rabbitmq.conf or by a policy",
        )
    return ok(subject, "no known task holds its message for half an hour")


def _poison(app: Any) -> Finding:
    subject = "acknowledgement"
    queues = app.conf.task_queues or ()
    bounded = all((queue.queue_arguments or {}).get("x-queue-type") == "quorum" for queue in queues)
    if bounded:
        return ok(subject, "late, on quorum queues, which count deliveries")
    return warning(
        subject,
        "late, on queues without a limit of deliveries: a task that kills its worker comes back "
        "for ever",
        "use QUEUE_TYPE='quorum', with a policy that sets delivery-limit and dead-letter-exchange",
    )
