"""What can be wrong with a deployment's broker."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from kombu import Queue
from kombu.exceptions import ChannelError, OperationalError

from ..brokers.broker import Broker, QueueAttributes
from ..brokers.kinds import broker_of_app, broker_of_connection
from ..errors import UnconfirmedError
from ..publishing.probe import reached
from ..routing.router import Router, router_of
from .findings import Finding, error, ok, warning


def check_broker(app: Any) -> Iterator[Finding]:
    """Connect, and make a finding of each fact that only the broker knows."""
    subject = "broker"
    connection = app.connection_for_write()
    broker = broker_of_connection(connection)
    try:
        retries = max(1, len(connection.alt) - 1)  # each host of a list
        connection.ensure_connection(max_retries=retries, interval_start=0.2)
        yield ok(subject, f"reachable: {connection.as_uri()}")
        forsaken = list(_forsaken(app, broker, connection))
        yield from _queues(app, broker, connection)
        yield from forsaken
        yield from _eviction(broker, connection)
        yield from _attributes(app, broker, connection)
    except UnconfirmedError as exc:
        yield error(subject, exc, "give it memory or disk space, or start workers that empty it")
    except (OperationalError, OSError, *connection.connection_errors) as exc:
        yield error(subject, exc, broker.remedy)
    except Exception as exc:  # boto3's errors have no common root with the others
        yield error(subject, exc, "check broker_url and the rights of its user")
    finally:
        connection.release()


def _all_queues(router: Router) -> list[Queue]:
    return [*router.queues.values(), router.monitor]


def _forsaken(app: Any, broker: Broker, connection: Any) -> Iterator[Finding]:
    """Find work queues in which messages wait, and that no worker consumes from."""
    if not broker.has_remote_control:
        return  # nobody tells who consumes from what
    queues = router_of(app).queues.values()
    lengths = ((queue, _length(broker, connection, queue)) for queue in queues)
    waiting = {queue.name: (queue, count) for queue, count in lengths if count}
    if not waiting:
        return
    consumed = _consumed(app, broker, connection, (queue for queue, _ in waiting.values()))
    for name in sorted(waiting.keys() - consumed):
        yield warning(
            f"messages of {name}",
            f"{waiting[name][1]} wait, and no worker consumes from it",
            f"start one that does: celery -A proj worker -Q {name}",
        )


def _length(broker: Broker, connection: Any, queue: Queue) -> int:
    try:
        return broker.length(connection, queue)
    except ChannelError:
        return 0  # there is no such queue, which another finding tells


def _consumed(app: Any, broker: Broker, connection: Any, queues: Iterable[Queue]) -> set[str]:
    """Return the names of the queues that somebody consumes from, at least of those given."""
    counts = {queue.name: broker.consumers(connection, queue) for queue in queues}
    if None not in counts.values():
        return {name for name, count in counts.items() if count}
    # The broker does not count them: the workers know.
    answers = app.control.inspect(timeout=2).active_queues() or {}
    return {queue["name"] for answer in answers.values() for queue in answer}


def _queues(app: Any, broker: Broker, connection: Any) -> Iterator[Finding]:
    """Tell whether each queue is there, of its kind, and bound by its key and no other."""
    unread = []
    for queue in _all_queues(router_of(app)):
        subject = f"queue {queue.name}"
        if (absence := broker.absence(connection, queue)) is not None:
            yield error(subject, absence, "start a worker or call setup_app(app), which declare it")
        elif (difference := broker.difference(connection, queue)) is not None:
            yield error(
                subject,
                difference,
                "empty and delete the queue, then let a worker declare it anew; or set QUEUE_TYPE "
                "to what it is",
            )
        elif (keys := broker.bindings(connection, queue, app.conf.MANAGEMENT_URL)) is None:
            unread.append(queue)
        else:
            yield _binding(queue, keys, f", only by {sorted(keys)}")
    yield from _unread_bindings(app, broker, connection, unread)


def _unread_bindings(
    app: Any, broker: Broker, connection: Any, queues: list[Queue]
) -> Iterator[Finding]:
    """Where bindings cannot be read, see where probes come to; only idle queues tell."""
    monitor = router_of(app).monitor
    idle = [
        queue
        for queue in queues
        if queue is not monitor and not broker.consumers(connection, queue)
    ]
    came = {queue.name: reached(app, connection, queue, idle) for queue in idle}
    for queue in queues:
        if queue in idle:
            keys = {sent.routing_key for sent in idle if queue.name in came[sent.name]}
            yield _binding(queue, keys, ": no probe came")
        else:
            yield warning(
                f"queue {queue.name}",
                "it is there; its bindings could not be read while workers consume",
                "enable RabbitMQ's management plugin for this user, or look at `rabbitmqctl "
                "list_bindings`",
            )


def _binding(queue: Queue, keys: set[str], otherwise: str) -> Finding:
    """Tell whether ``keys`` are those of a queue; ``otherwise`` says what was seen instead."""
    subject, exchange, wanted = f"queue {queue.name}", queue.exchange.name, queue.routing_key
    if wanted not in keys:
        return error(
            subject,
            f"not bound to {exchange} by {wanted!r}{otherwise}",
            "start a worker or call setup_app(app), which bind it",
        )
    others = sorted(keys - {wanted})
    if others:
        return error(
            subject,
            f"also bound to {exchange} by {others}: it gets other queues' tasks",
            "undo these bindings, as on RabbitMQ's management pages or with kombu's "
            "queue.unbind_from",
        )
    return ok(subject, f"bound to {exchange} by {wanted!r}")


def _eviction(broker: Broker, connection: Any) -> Iterator[Finding]:
    subject = f"{broker.title}'s memory"
    try:
        policy = broker.eviction_policy(connection)
    except Exception as exc:  # hosted Redis forbids CONFIG
        yield warning(subject, f"its policy cannot be read ({exc})", "make sure it is noeviction")
        return
    if policy is None:
        return
    if policy != "noeviction":
        yield error(
            subject,
            f"maxmemory-policy is {policy}: {broker.title} may drop queues, bindings and tasks",
            "set maxmemory-policy noeviction",
        )
    else:
        yield ok(subject, "nothing is evicted")


def _attributes(app: Any, broker: Broker, connection: Any) -> Iterator[Finding]:
    router = router_of(app)
    longest = broker.visibility_timeout(app.conf.broker_transport_options or {}) or 0
    for queue in _all_queues(router):
        attributes = broker.attributes(connection, queue)
        if attributes is not None:
            subject = f"{broker.title} queue {queue.name}"
            yield _attribute(subject, attributes, queue is router.monitor, longest)


def _attribute(
    subject: str, attributes: QueueAttributes, is_monitor: bool, longest: float
) -> Finding:
    hidden = attributes.visibility_timeout
    if not attributes.is_listed:
        return error(
            subject,
            "not in predefined_queues: its messages cannot be acknowledged",
            "list every work queue and the monitor queue in predefined_queues",
        )
    if is_monitor and not attributes.is_fifo:
        return error(subject, "no FIFO queue", "delete it, and let a worker make it anew")
    if hidden is not None and hidden < longest:
        return error(
            subject,
            f"its visibility timeout is {hidden} s, not {longest:g} s as the settings say: of a "
            "predefined queue its own counts",
            "raise VisibilityTimeout of the queue",
        )
    room = attributes.arguments_bytes
    return ok(subject, f"arguments of a task may take some {room:,} bytes of JSON")


def check_workers(app: Any) -> Finding:
    """Ask the workers that run now for their version of Celery."""
    subject = "workers"
    broker = broker_of_app(app)
    if not broker.has_remote_control:
        return ok(subject, f"{broker.title} cannot ask them; see the ledger")
    try:
        reports = app.control.inspect(timeout=2).report() or {}
    except Exception as exc:  # whatever the transport raises
        return error(subject, exc, "check the broker")
    old = {}
    for worker, report in reports.items():
        match = re.search(r"celery:(\d+)\.(\d+)[^ ]*", str(report.get("ok", "")))
        if match and (int(match[1]), int(match[2])) < (5, 7):
            old[worker] = match[0]
    if old:
        return error(
            subject,
            f"these write results that Celery 5.7 does not read, and do not read ours: {old}",
            "run one version of Celery, 5.7 or later, everywhere",
        )
    if not reports:
        return warning(subject, "none answers", "start one: celery -A proj worker")
    return ok(subject, f"{len(reports)} answer, with the results of this version")
