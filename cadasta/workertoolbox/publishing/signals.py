"""What happens at a publish: the time stamp, the caller's values, the expiry, the net for strays.

Celery's publish signals are global to the process. They act here only where the publish carries
the toolbox's :class:`~..routing.router.Declaration`, so another app of the process is left alone.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from celery import _state, signals
from kombu import Queue
from kombu.exceptions import EncodeError, LimitExceeded
from kombu.transport.native_delayed_delivery import (
    bind_queue_to_native_delayed_delivery_exchange,
    declare_native_delayed_delivery_exchanges_and_queues,
    level_name,
)

from ..brokers.amqp.expiring import EXPIRING, LONGEST, Expiring
from ..brokers.sqs.message_groups import give_group
from ..errors import TopologyError
from ..messages.decoding import (
    HEADER_PROPERTIES,
    HEADER_PUBLISHED_AT,
    HEADER_QUEUE,
    custom_header_names,
)
from ..messages.portable import portable, portable_mapping
from ..routing.names import DELAY_EXCHANGE_PREFIX, is_monitored, plain_routing_key
from ..routing.router import Declaration, Router

logger = logging.getLogger(__name__)

#: Where a delayed message goes in: the exchange of kombu's highest level.
DELAY_EXCHANGE = level_name(27)

#: Words of AMQP, kombu, Celery and Amazon SQS that may stand among a message's properties. What a
#: caller adds beside them does not survive AMQP, so it travels in a header as well. A retry brings
#: Celery's words along, of the delivery before it and of its task's options.
_KNOWN_PROPERTIES = frozenset(
    # AMQP and kombu
    "content_type content_encoding delivery_mode priority correlation_id reply_to expiration"
    " message_id timestamp type user_id app_id cluster_id application_headers"
    " mandatory immediate body_encoding delivery_info delivery_tag redelivered exchange routing_key"
    # Celery
    " exchange_type queue serializer compression headers origin argsrepr kwargsrepr now timezone"
    " eta countdown expires retries time_limit soft_time_limit ignore_result shadow"
    # Amazon SQS
    " MessageGroupId MessageDeduplicationId message_attributes delay_seconds DelaySeconds".split()
)

#: The publish that is under way in this thread and passes the monitor queue by.
_under_way = threading.local()

#: The app that each router publishes copies with.
_apps: weakref.WeakKeyDictionary[Router, weakref.ref[Any]] = weakref.WeakKeyDictionary()


def connect() -> None:
    """Listen to Celery's publish signals; calling it again changes nothing."""
    for signal, receiver in (
        (signals.before_task_publish, before_publish),
        (signals.after_task_publish, after_publish),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=f"workertoolbox.{receiver.__name__}")


def before_publish(
    *,
    exchange: Any = None,
    routing_key: str | None = None,
    declare: Any = None,
    headers: dict[str, Any] | None = None,
    properties: dict[str, Any] | None = None,
    **_: Any,
) -> None:
    """Prepare a task message before Celery hands it to the broker (``before_task_publish``)."""
    if type(declare) is not Declaration or headers is None or properties is None:
        return
    router = declare.router
    _make_portable(headers, properties)
    headers[HEADER_PUBLISHED_AT] = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    if router.message_groups:
        give_group(properties, headers.get("id"))
    name = getattr(exchange, "name", exchange) or ""
    # The first declared is the target, unless the caller named no more than an exchange.
    queue = declare[0].name if len(declare) > 1 else routing_key or name
    if not is_monitored(name, router.exchange_name):
        _under_way.stray = (router, headers, _without_expiration(properties), queue)
    elif name.startswith(DELAY_EXCHANGE_PREFIX):
        # A queue of the delays would hand the task on when it expires, before it is due.
        properties.pop("expiration", None)
        declare.extend(delay_topology(router, [plain_routing_key(routing_key or "")]))
    elif "expiration" in properties:
        # The broker would drop the monitor's copy as well. The worker reads the header.
        expiration = properties.pop("expiration")
        if router.expires_on_broker and isinstance(expiration, (int, float)):
            milliseconds = max(0, int(expiration * 1000))
            if milliseconds <= LONGEST:
                properties[EXPIRING] = Expiring(
                    milliseconds, queue, router.monitor.name, {HEADER_QUEUE: queue}
                )


def _make_portable(headers: dict[str, Any], properties: dict[str, Any]) -> None:
    """Make what the caller added the same on every broker; take the caller's own properties."""
    # A task may be given the headers of another, as ``self.request.headers``.
    headers.pop(HEADER_QUEUE, None)
    headers.pop(HEADER_PROPERTIES, None)
    for name in custom_header_names(headers):
        headers.update(portable_mapping({name: headers.pop(name)}))
    if headers.get("stamps"):
        headers["stamps"] = portable_mapping(headers["stamps"])
        headers["stamped_headers"] = portable(headers.get("stamped_headers"))
    own = _properties_before(headers) if headers.get("retries") else {}
    for name in sorted(properties.keys() - _KNOWN_PROPERTIES):
        one = portable_mapping({name: properties.pop(name)})
        properties.update(one)
        own.update(one)
    if own:
        headers[HEADER_PROPERTIES] = own


def _properties_before(headers: dict[str, Any]) -> dict[str, Any]:
    """The caller's own properties of a task that retries itself; Celery does not repeat them."""
    task = _state.get_current_worker_task()
    if task is None or task.request.id != headers.get("id"):
        return {}
    return dict((task.request.headers or {}).get(HEADER_PROPERTIES) or {})


def _without_expiration(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if name != "expiration"}


def after_publish(
    *,
    body: Any = None,
    headers: dict[str, Any] | None = None,
    sender: str | None = None,
    **_: Any,
) -> None:
    """Give the monitor queue its copy of a task that went past it (``after_task_publish``)."""
    stray = _under_way.__dict__.pop("stray", None)
    if stray is None or stray[1] is not headers:
        return
    router, sent, properties, queue = stray
    try:
        publish_copy(router, body, {**sent, HEADER_QUEUE: queue}, properties)
    except Exception:
        # The task is out already: failing its publisher now would make it send the task again.
        logger.exception("Task %s was published, but not its copy for the ledger", sender)


def publish_copy(
    router: Router, body: Any, headers: dict[str, Any], properties: dict[str, Any]
) -> None:
    """Put a copy of a task message on the monitor queue alone.

    Raises:
        kombu.exceptions.OperationalError: the broker does not take it.
    """
    app = _app_of(router)
    pool = app.amqp.producer_pool
    try:
        # The publish that is being copied holds a producer of this pool: waiting for a second
        # one could wait for ever.
        producer = pool.acquire(block=False)
    except LimitExceeded:
        with app.connection_for_write() as connection:
            _send_copy(app, app.amqp.Producer(connection), router, body, headers, properties)
        return
    with producer:
        _send_copy(app, producer, router, body, headers, properties)


def _send_copy(
    app: Any, producer: Any, router: Router, body: Any, headers: Any, properties: Any
) -> None:
    options = {
        **properties,
        "exchange": "",
        "routing_key": router.monitor.name,
        "declare": [router.monitor],
        "headers": headers,
        "delivery_mode": 2,
        "retry": True,
        "retry_policy": app.conf.task_publish_retry_policy,
    }
    try:
        producer.publish(body, serializer="json", **options)
    except EncodeError:
        # Its own serializer took the arguments, JSON does not: the headers hold their repr.
        producer.publish([None, None, {}], serializer="json", **options)


def _app_of(router: Router) -> Any:
    """The app that publishes through ``router``: any that has it, they share its settings."""
    known = _apps.get(router)
    app = known() if known is not None else None
    if app is None:
        for candidate in _state._get_active_apps():
            if candidate.configured and candidate.conf.task_routes is router:
                app = candidate
                _apps[router] = weakref.ref(app)
                break
        else:
            raise TopologyError(f"no Celery app of this process has {router!r} as its task_routes.")
    return app


class DelayLevels(Queue):
    """Celery's delay exchanges and queues, and the monitor queue's binding to them.

    It is declared like a queue, so that kombu remembers it per connection. Without the monitor's
    binding the copy of a delayed task would come when the task is due.
    """

    def __hash__(self) -> int:
        return hash(f"D|{self.name}")

    def declare(self, nowait: bool = False, channel: Any = None) -> str:
        """Declare them, and return their name; called by kombu."""
        channel = channel or self.channel
        declare_native_delayed_delivery_exchanges_and_queues(
            _OneChannel(channel), self.queue_arguments["x-queue-type"]
        )
        self.bind_to(DELAY_EXCHANGE, "#", channel=channel)
        return str(self.name)


class DelayedQueue(Queue):
    """A work queue's binding to the exchange at which delayed messages come out."""

    def __hash__(self) -> int:
        return hash(f"DQ|{self.name}")

    def declare(self, nowait: bool = False, channel: Any = None) -> str:
        """Bind the queue, and return its name; called by kombu."""
        bind_queue_to_native_delayed_delivery_exchange(_OneChannel(channel or self.channel), self)
        return str(self.name)


class _OneChannel:
    """Gives kombu's delay functions, which open a channel and leave it open, the one at hand."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def channel(self) -> Any:
        return self._channel


def delay_topology(router: Router, names: Iterable[str]) -> list[Queue]:
    """What a delayed publish to the queues ``names`` needs, in the order of declaration."""
    levels = DelayLevels(
        router.monitor.name, queue_arguments={"x-queue-type": router.delay_queue_type}
    )
    targets = (router.queues[name] for name in names if name in router.queues)
    return [levels, *(DelayedQueue(q.name, q.exchange, routing_key=q.routing_key) for q in targets)]
