"""What can be wrong with a deployment's broker."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from kombu.exceptions import ChannelError, OperationalError

from ..errors import UnconfirmedError
from ..publishing import probe
from ..routing.router import router_of
from .findings import Finding, error, kind_of, ok, warning

#: Seconds for RabbitMQ's management interface to answer.
MANAGEMENT_TIMEOUT = 3.0
#: Bytes of a message that Amazon SQS takes; kombu encodes the body twice in base64.
SQS_MESSAGE_BYTES = 1_048_576
SQS_OVERHEAD = 1.78


def check_broker(app: Any) -> Iterator[Finding]:
    """Connect, and look at everything that only the broker knows."""
    subject = "broker"
    connection = app.connection_for_write()
    try:
        retries = max(1, len(connection.alt) - 1)  # each host of a list
        connection.ensure_connection(max_retries=retries, interval_start=0.2)
        yield ok(subject, f"reachable: {connection.as_uri()}")
        kind = kind_of(app)
        forsaken = list(_forsaken(app, connection)) if kind != "sqs" else []
        yield from _queues(app, connection)
        yield from forsaken
        if kind == "redis":
            yield _eviction(connection)
        if kind == "sqs":
            yield from _sqs(app, connection)
    except UnconfirmedError as exc:
        yield error(subject, exc, "give it memory or disk space, or start workers that empty it")
    except (OperationalError, OSError, *connection.connection_errors) as exc:
        remedy = "start the broker, and check broker_url, its password and the network"
        if kind_of(app) == "sqs":
            remedy = (
                "name AWS credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a "
                "role), and check their rights, the region and the network"
            )
        yield error(subject, exc, remedy)
    except Exception as exc:  # boto3's errors have no common root with the others
        yield error(subject, exc, "check broker_url and the rights of its user")
    finally:
        connection.release()


def _queues(app: Any, connection: Any) -> Iterator[Finding]:
    router = router_of(app)
    found = [_queue(app, connection, queue) for queue in [*router.queues.values(), router.monitor]]
    yield from (finding for finding in found if finding.level != "warning")
    unread = {finding.subject: finding for finding in found if finding.level == "warning"}
    if unread:
        yield from _probed(app, connection, unread)


def _forsaken(app: Any, connection: Any) -> Iterator[Finding]:
    """Find work queues in which messages wait, and that no worker consumes from."""
    queues = router_of(app).queues.values()
    waiting = {queue.name: _waiting(connection, queue) for queue in queues}
    waiting = {name: count for name, count in waiting.items() if count}
    if not waiting:
        return
    if kind_of(app) == "amqp":
        filled = [queue for queue in queues if queue.name in waiting]
        consumed = {queue.name for queue in filled if probe.consumers(connection, queue)}
    else:  # virtual transports do not count them: the workers know
        answers = app.control.inspect(timeout=2).active_queues() or {}
        consumed = {queue["name"] for answer in answers.values() for queue in answer}
    for name in sorted(waiting.keys() - consumed):
        yield warning(
            f"messages of {name}",
            f"{waiting[name]} wait, and no worker consumes from it",
            f"start one that does: celery -A proj worker -Q {name}",
        )


def _waiting(connection: Any, queue: Any) -> int:
    try:
        return probe.length(connection, queue)
    except ChannelError:
        return 0  # there is no such queue, which another finding tells


def _probed(app: Any, connection: Any, unread: dict[str, Finding]) -> Iterator[Finding]:
    """Where bindings cannot be read, see where probes come to; only idle queues tell."""
    router = router_of(app)
    queues = [
        queue
        for queue in [*router.queues.values(), router.monitor]
        if f"queue {queue.name}" in unread
    ]
    idle = [
        queue
        for queue in queues
        if queue is not router.monitor and not probe.consumers(connection, queue)
    ]
    came = {one.name: probe.reached(app, connection, one, idle) for one in idle}
    for queue in queues:
        subject = f"queue {queue.name}"
        others = sorted(name for name, found in came.items() if queue.name in found - {name})
        if queue not in idle:
            yield unread[subject]
        elif queue.name not in came[queue.name]:
            yield error(
                subject,
                f"not bound to {queue.exchange.name} by {queue.routing_key!r}: no probe came",
                "start a worker or call setup_app(app), which bind it",
            )
        elif others:
            yield _foreign(subject, queue, others)
        else:
            yield ok(subject, f"bound to {queue.exchange.name} by {queue.routing_key!r}")


def _foreign(subject: str, queue: Any, keys: list[str]) -> Finding:
    return error(
        subject,
        f"also bound to {queue.exchange.name} by {keys}: it gets other queues' tasks",
        "undo these bindings, as on RabbitMQ's management pages or with kombu's queue.unbind_from",
    )


def _queue(app: Any, connection: Any, queue: Any) -> Finding:
    """Tell whether a queue is there, of its kind, and bound by its key and no other."""
    subject = f"queue {queue.name}"
    if kind_of(app) != "redis":  # where an empty queue is none
        with connection.channel() as channel:
            try:
                queue(channel).queue_declare(passive=True)
            except ChannelError as exc:
                return error(
                    subject, exc, "start a worker or call setup_app(app), which declare it"
                )
    if kind_of(app) == "amqp":
        with connection.channel() as channel:
            try:  # as it should be: RabbitMQ refuses where it is otherwise
                queue(channel).queue_declare()
            except ChannelError as exc:
                return error(
                    subject,
                    exc,
                    "empty and delete the queue, then let a worker declare it anew; or set "
                    "QUEUE_TYPE to what it is",
                )
    found = _bindings(app, connection, queue)
    if found is None:
        return warning(
            subject,
            "it is there; its bindings could not be read while workers consume",
            "enable RabbitMQ's management plugin for this user, or look at `rabbitmqctl "
            "list_bindings`",
        )
    wanted = queue.routing_key
    if wanted not in found:
        return error(
            subject,
            f"not bound to {queue.exchange.name} by {wanted!r}, only by {sorted(found)}",
            "start a worker or call setup_app(app), which bind it",
        )
    others = sorted(found - {wanted})
    if others:
        return _foreign(subject, queue, others)
    return ok(subject, f"bound to {queue.exchange.name} by {wanted!r}")


def _bindings(app: Any, connection: Any, queue: Any) -> set[str] | None:
    """Return the keys that bind a queue to the exchange; None where nobody tells."""
    kind, exchange = kind_of(app), queue.exchange.name
    if kind == "amqp":
        return _rabbitmq_bindings(app, connection, queue)
    with connection.channel() as channel:
        if kind == "redis":
            table = ((name, exchange, key) for key, _, name in channel.get_table(exchange))
        elif kind == "embedded":
            table = channel.list_bindings()
        else:  # in each process's memory: they go with each publish, and cannot be wrong
            return {queue.routing_key}
        return {key for name, at, key in table if (name, at) == (queue.name, exchange)}


def management_url(connection: Any) -> str:
    """Return where a broker's management interface is by default; the password goes there too."""
    if connection.ssl:  # then it must not go in the clear
        return f"https://{connection.hostname}:15671"
    return f"http://{connection.hostname}:15672"


def _rabbitmq_bindings(app: Any, connection: Any, queue: Any) -> set[str] | None:
    """Ask the management interface; the protocol itself has no way to read bindings."""
    url = urlsplit(app.conf.MANAGEMENT_URL or management_url(connection))
    base = urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path.rstrip("/"), "", ""))
    place = "/".join(
        quote(part, safe="")
        for part in (connection.virtual_host or "/", "e", queue.exchange.name, "q", queue.name)
    )
    request = urllib.request.Request(f"{base}/api/bindings/{place}")  # noqa: S310
    name = unquote(url.username or "") or connection.userid or "guest"
    user = f"{name}:{unquote(url.password or '') or connection.password or 'guest'}"
    request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=MANAGEMENT_TIMEOUT) as answer:  # noqa: S310
            return {binding["routing_key"] for binding in json.load(answer)}
    except (OSError, ValueError, KeyError, TypeError, urllib.error.URLError):
        return None


def _eviction(connection: Any) -> Finding:
    subject = "Redis's memory"
    client = connection.default_channel.client
    try:
        policy = client.config_get("maxmemory-policy").get("maxmemory-policy", "")
    except Exception as exc:  # hosted Redis forbids CONFIG
        return warning(subject, f"its policy cannot be read ({exc})", "make sure it is noeviction")
    if isinstance(policy, bytes):
        policy = policy.decode()
    if policy != "noeviction":
        return error(
            subject,
            f"maxmemory-policy is {policy}: Redis may drop queues, bindings and tasks",
            "set maxmemory-policy noeviction",
        )
    return ok(subject, "nothing is evicted")


def _sqs(app: Any, connection: Any) -> Iterator[Finding]:
    router = router_of(app)
    channel = connection.default_channel
    client = channel.sqs()
    longest = int((app.conf.broker_transport_options or {}).get("visibility_timeout", 3600))
    predefined = channel.predefined_queues
    for queue in [*router.queues.values(), router.monitor]:
        subject = f"SQS queue {queue.name}"
        if predefined and queue.name not in predefined:
            yield error(
                subject,
                "not in predefined_queues: its messages cannot be acknowledged",
                "list every work queue and the monitor queue in predefined_queues",
            )
            continue
        address = channel._new_queue(queue.name)
        found = client.get_queue_attributes(QueueUrl=address, AttributeNames=["All"])["Attributes"]
        size = int(found.get("MaximumMessageSize", SQS_MESSAGE_BYTES))
        hidden = int(found.get("VisibilityTimeout", 30))
        if queue is router.monitor and found.get("FifoQueue") != "true":
            yield error(subject, "no FIFO queue", "delete it, and let a worker make it anew")
        elif predefined and hidden < longest:
            yield error(
                subject,
                f"its visibility timeout is {hidden} s, not {longest} s as the settings say: of a "
                "predefined queue its own counts",
                "raise VisibilityTimeout of the queue",
            )
        else:
            room = int(size / SQS_OVERHEAD)
            yield ok(subject, f"arguments of a task may take some {room:,} bytes of JSON")


def check_workers(app: Any) -> Finding:
    """Ask the workers that run now for their version of Celery."""
    subject = "workers"
    if kind_of(app) == "sqs":
        return ok(subject, "SQS cannot ask them; see the ledger")
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
