"""The exchange, its queues, and the routing to them. Pure: nothing here talks to a broker.

Each work queue listens on one topic exchange to its own name; the monitor queue listens to
everything, so the broker itself makes the copy that the ledger is built from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from celery._state import get_current_worker_task
from kombu import Exchange, Queue
from kombu.common import Broadcast

from .errors import ConfigError, TopologyError

#: Celery's name for the queue of tasks that no other queue wants.
DEFAULT_QUEUE = "celery"
#: Where Celery's delayed delivery on quorum queues takes messages in (kombu's level names).
DELAY_EXCHANGE_PREFIX = "celery_delayed_"
#: RabbitMQ 4 drops a message of a quorum queue after 20 deliveries; the ledger must not lose one.
MONITOR_DELIVERY_LIMIT = 2**31 - 1
#: The longest name of a queue, in bytes: an AMQP routing key ends at 255 of them, and delayed
#: delivery takes 56.
MAX_QUEUE_NAME = 199
#: The longest name that Amazon SQS takes, prefix and ``.fifo`` included.
SQS_NAME_LENGTH = 80

_DELAY_KEY_PREFIX = re.compile(r"^(?:[01]\.){28}")

QUEUE_TYPES = ("classic", "quorum")

#: The options of a publish that say where it goes.
_ADDRESS = ("queue", "exchange", "routing_key")


#: Celery's own tasks that stand for, or wait for, tasks of an application. Their names say nothing
#: of who consumes these.
_STAND_INS = frozenset(
    f"celery.{name}"
    for name in (
        "accumulate",
        "chain",
        "chord",
        "chord_unlock",
        "chunks",
        "group",
        "map",
        "starmap",
    )
)


def _addressed(options: Mapping[str, Any]) -> bool:
    # Celery hands every option of a task's class on, most of them None.
    return any(options.get(key) is not None for key in _ADDRESS)


def work_queue(name: str, exchange: Exchange, queue_type: str = "classic") -> Queue:
    """The queue ``name``, bound to ``exchange`` by its own name."""
    arguments = {"x-queue-type": "quorum"} if queue_type == "quorum" else None
    return Queue(name, exchange, routing_key=name, queue_arguments=arguments)


def monitor_queue(name: str, exchange: Exchange, queue_type: str = "classic") -> Queue:
    """The queue that receives a copy of every message on ``exchange``.

    It is as durable as the work queues: with ``queue_type="quorum"`` it is a quorum queue too.
    """
    arguments = None
    if queue_type == "quorum":
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": MONITOR_DELIVERY_LIMIT}
    return Queue(name, exchange, routing_key="#", queue_arguments=arguments)


def _published(queue: Queue) -> PublishedQueue:
    return PublishedQueue(**queue.as_dict(), on_declared=queue.on_declared)


def set_max_priority(queue: Queue, highest: int | None) -> None:
    """Give ``queue`` the ``x-max-priority`` of ``task_queue_max_priority``, unless it has one.

    Celery does so when it makes its own table of the queues, which is too late for a declaration
    that came before.
    """
    if highest is not None:
        queue.queue_arguments = {"x-max-priority": highest, **(queue.queue_arguments or {})}


def require_possible_queues(queues: Iterable[Queue]) -> None:
    """Refuse quorum queues that RabbitMQ refuses: each declaration would close its channel.

    Raises:
        ConfigError: names the queue, the option and the remedy.
    """
    for queue in queues:
        arguments = queue.queue_arguments or {}
        if arguments.get("x-queue-type") != "quorum":
            continue
        wrong = {
            "task_queue_max_priority (x-max-priority)": "x-max-priority" in arguments
            or queue.max_priority is not None,
            "durable=False": not queue.durable,
            "exclusive=True": queue.exclusive,
            "auto_delete=True": queue.auto_delete,
        }
        for option in (name for name, is_set in wrong.items() if is_set):
            raise ConfigError(
                f"queue {queue.name!r} is a quorum queue, for which RabbitMQ takes no {option}: "
                f"leave it out, or make the queue a classic one (QUEUE_TYPE='classic')."
            )


def is_monitored(exchange: str, exchange_name: str) -> bool:
    """Whether a publish to ``exchange`` reaches the monitor queue by the broker's own bindings."""
    return exchange == exchange_name or exchange.startswith(DELAY_EXCHANGE_PREFIX)


def plain_routing_key(routing_key: str) -> str:
    """``routing_key`` without the digits that delayed delivery puts before it."""
    return _DELAY_KEY_PREFIX.sub("", routing_key, count=1)


def first_task(signature: Any) -> Any:
    """The first signature in ``signature`` that is of an application's task, or None."""
    waiting = [signature]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, Mapping) or not isinstance(one.get("task"), str):
            continue
        if one["task"] not in _STAND_INS:
            return one
        parts = one.get("kwargs") or {}
        for key in ("tasks", "header", "task"):
            part = parts.get(key)
            # From the end, so that the first is looked at next.
            waiting.extend(reversed(part) if isinstance(part, (list, tuple)) else [part])
    return None


class PublishedQueue(Queue):
    """A queue as a publish declares it.

    kombu binds, which means copies, each entity before it looks up whether the connection has
    declared it already. A publish pays for that twice; here it costs one small object.
    """

    def bind(self, channel: Any) -> Any:
        return _OnChannel(self, channel)

    __call__ = bind


class _OnChannel:
    """A queue on one channel, with what kombu's ``maybe_declare`` asks for."""

    __slots__ = ("channel", "queue")

    is_bound = True

    def __init__(self, queue: Queue, channel: Any) -> None:
        self.queue = queue
        self.channel = channel

    @property
    def name(self) -> str:
        return str(self.queue.name)

    @name.setter
    def name(self, name: str) -> None:
        """kombu hands the name of a queue back that the broker has named; ours have names."""

    @property
    def can_cache_declaration(self) -> bool:
        return bool(self.queue.can_cache_declaration)

    def __hash__(self) -> int:
        return hash(self.queue)

    def revive(self, channel: Any) -> None:
        self.channel = channel

    def declare(self, nowait: bool = False, channel: Any = None) -> None:
        Queue.bind(self.queue, channel or self.channel).declare(nowait=nowait)


class Declaration(list[Any]):
    """What a publish declares first: the target queue and the monitor queue.

    Its type marks a publish as one of an app that the toolbox set up: Celery's publish signals
    are global to the process, and hand this list on.
    """

    __slots__ = ("router",)

    def __init__(self, entities: Iterable[Any], router: Router) -> None:
        super().__init__(entities)
        self.router = router

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self), self.router)


class Router:
    """Celery's ``task_routes``: sends each task to its queue and declares that queue's topology.

    A task goes to the queue whose name is the longest dotted prefix of the task's name
    (``export.pdf.render`` to ``export.pdf`` before ``export``), else to the default queue. An
    explicit ``queue=`` wins.

    The route names exchange, routing key *and* ``declare``: on SQS, Redis and SQLite a binding is
    known to the process that declared it alone, so it has to ride with each publish. kombu
    remembers per connection what was declared, so this costs a set look-up.

    Args:
        queues: all work queues by name.
        monitor: the monitor queue.
        default_queue: where a task goes whose name no queue's name begins.
        user_routes: Celery routers asked first; what they answer is completed.
        message_groups: give each message its own message group (Amazon SQS).
        expires_on_broker: the transport can let a task expire in its queue, and not its copy.
        delay_queue_type: the type of Celery's delay queues, ``classic`` or ``quorum``.
    """

    def __init__(
        self,
        queues: Mapping[str, Queue],
        monitor: Queue,
        default_queue: str = DEFAULT_QUEUE,
        user_routes: Any = None,
        message_groups: bool = False,
        expires_on_broker: bool = False,
        delay_queue_type: str = "quorum",
    ) -> None:
        self.queues = dict(queues)
        self.monitor = monitor
        self.default_queue = default_queue
        self.user_routes = user_routes
        self.message_groups = message_groups
        self.expires_on_broker = expires_on_broker
        self.delay_queue_type = delay_queue_type
        self.exchange_name: str = monitor.exchange.name
        self.quorum = any(
            (queue.queue_arguments or {}).get("x-queue-type") == "quorum"
            for queue in self.queues.values()
        )
        self._routes: dict[str, dict[str, Any]] = {}
        self._by_task: dict[str, str] = {}
        self._prepared: list[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_routes": {}, "_by_task": {}, "_prepared": None}

    def __repr__(self) -> str:
        return f"<Router: {len(self.queues)} queues, monitored by {self.monitor.name}>"

    def __call__(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        options: dict[str, Any] | None = None,
        task: Any = None,
        **_: Any,
    ) -> dict[str, Any]:
        """The route of one task, as Celery asks for it.

        Raises:
            TopologyError: the caller's queue or routing key reaches no work queue.
        """
        # ``options`` are the caller's own; Celery lets them win over a route.
        options = {} if options is None else options
        leader = self._leader(name, args, kwargs, options, task) if name in _STAND_INS else None
        if leader is not None:
            options.pop("queue", None)
            route = self._route_queue(leader.name)
        elif self.user_routes is not None and not _addressed(options):
            found = self._user_route(name, args, kwargs, options, task) or {}
            given = {key: found.pop(key) for key in _ADDRESS if key in found}
            route = {**self._resolve(name, given), **given, **found}
        else:
            route = self._resolve(name, options)
        if options.get("declare"):
            route["declare"] = Declaration([*route["declare"], *options.pop("declare")], self)
        return route

    def _resolve(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        """The route of the task ``name``, by what ``options`` say of its destination."""
        queue = options.get("queue")
        if queue is not None:
            return self._route_given(queue, options)
        if _addressed(options):
            return self._route_address(name, options)
        return self._route_queue(self.queue_for(name))

    def _leader(
        self, name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any
    ) -> Queue | None:
        """The work queue of the tasks that one of Celery's own stands for; None: as any other task.

        In the default queue a worker that consumes other queues alone would never run it.
        """
        queue_is_named = options.get("queue") is not None
        if name == "celery.chord_unlock" and len(args or ()) > 1:
            # Celery names the queue of its body, and that of a chain or a group by the names
            # "celery.chain" and "celery.group".
            meant = args[1]
            body = str(meant.get("task"))
            if body not in _STAND_INS or (meant.get("options") or {}).get("queue") is not None:
                return None
            name = body
        else:
            meant = {"task": name, "kwargs": kwargs}
            if queue_is_named:
                return None
        if not queue_is_named and _addressed(options):
            return None  # a retry, which stays where it is
        if self.user_routes is not None and self._user_route(name, args, kwargs, options, task):
            return None
        if self.queue_for(name) not in (self.default_queue, DEFAULT_QUEUE):
            return None
        return self._queue_of(first_task(meant)) or self._queue_at_work()

    def _queue_of(self, signature: Any) -> Queue | None:
        """The work queue of a signature; None where it is of none of ours."""
        if signature is None:
            return None
        options = signature.get("options") or {}
        given = {key: options[key] for key in _ADDRESS if options.get(key) is not None}
        queue = given.get("queue")
        if isinstance(queue, str):
            given["queue"] = self.queues.get(queue)
            if given["queue"] is None:
                return None
        try:
            route = self(signature["task"], signature.get("args"), signature.get("kwargs"), given)
        except TopologyError:
            return None  # its own publish tells
        return route.get("queue")

    def _queue_at_work(self) -> Queue | None:
        """The work queue of the task that this worker is running and that publishes."""
        task = get_current_worker_task()
        info = None if task is None else task.request.delivery_info
        return self.queues.get(plain_routing_key((info or {}).get("routing_key") or ""))

    def queue_for(self, task_name: str) -> str:
        """The name of the queue that takes the task ``task_name``."""
        found = self._by_task.get(task_name)
        if found is None:
            prefix = task_name
            while prefix and prefix not in self.queues:
                prefix = prefix.rpartition(".")[0]
            found = prefix or self.default_queue
            if len(self._by_task) < 10_000:  # names may come from outside: bound the cache
                self._by_task[task_name] = found
        return found

    def _route_queue(self, name: str) -> dict[str, Any]:
        route = self._routes.get(name)
        if route is None:
            queue = self.queues[name]
            route = self._routes[name] = {
                "queue": queue,
                "exchange": queue.exchange.name,
                "routing_key": queue.routing_key,
                "declare": Declaration([_published(queue), _published(self.monitor)], self),
            }
        # Celery changes what it is given. Delayed delivery adds to the declaration as well.
        route = dict(route)
        if self.quorum:
            route["declare"] = Declaration(route["declare"], self)
        return route

    def _route_given(self, queue: Queue, options: dict[str, Any]) -> dict[str, Any]:
        """The route where the caller named a queue."""
        if queue.name == self.monitor.name:
            raise TopologyError(
                f"{queue.name!r} is the monitor queue: it takes copies by itself. "
                f"Name a work queue ({', '.join(sorted(self.queues))})."
            )
        known = self.queues.get(queue.name)
        if known is None or known.exchange.name != queue.exchange.name:
            # A Broadcast queue belongs to each consumer: a publisher knows its exchange alone.
            target = queue.exchange if isinstance(queue, Broadcast) else queue
            return {"declare": Declaration([target, self.monitor], self)}
        key = options.get("routing_key")
        if key is not None and plain_routing_key(key) != known.routing_key:
            raise TopologyError(
                f"routing_key {key!r} does not lead to the queue {queue.name!r}, whose binding is "
                f"{known.routing_key!r}. Leave routing_key out."
            )
        self._drop_address(options)
        return self._route_queue(queue.name)

    def _route_address(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        """The route where the caller, or a retry of a delivered task, named exchange or key."""
        exchange = options.get("exchange")
        exchange = getattr(exchange, "name", exchange)
        key = plain_routing_key(options.get("routing_key") or "")
        if exchange == "" and key in self.queues:
            exchange = self.exchange_name  # the default exchange would pass the monitor queue by
        if exchange is not None and not is_monitored(exchange, self.exchange_name):
            return {"declare": Declaration([self.monitor], self)}
        if not key:
            key = self.queue_for(name)
        if key not in self.queues:
            raise TopologyError(
                f"routing_key {key!r} of task {name!r} reaches no queue on {self.exchange_name!r}. "
                f"Add {key!r} to Config(queues=[...]) or name one of "
                f"{', '.join(sorted(self.queues))}."
            )
        self._drop_address(options)
        return self._route_queue(key)

    @staticmethod
    def _drop_address(options: dict[str, Any]) -> None:
        # A retry of a delayed task repeats the delay exchange and its mangled key; these are the
        # options that Celery goes on with, and there is no other way to take them back.
        options.pop("exchange", None)
        options.pop("routing_key", None)

    def _user_route(self, name: str, args: Any, kwargs: Any, options: Any, task: Any) -> Any:
        if self._prepared is None:
            from celery.app.routes import prepare  # only apps with routes of their own pay for it

            self._prepared = prepare(self.user_routes)
        for route in self._prepared:
            route = getattr(route, "route_for_task", route)
            found = route(name, args, kwargs, options, task=task)
            if found is not None:
                found = {"queue": found} if isinstance(found, str) else dict(found)
                if isinstance(found.get("queue"), str):
                    found["queue"] = self._queue_named(found["queue"])
                return found
        return None

    def _queue_named(self, name: str) -> Queue:
        try:
            return self.queues[name]
        except KeyError:
            raise TopologyError(
                f"task_routes names the queue {name!r}, which is not in Config(queues=[...]): "
                f"add it there."
            ) from None


def validate_queues(names: Any, *, monitor: str, queue_type: str, sqs_prefix: str | None) -> None:
    """Refuse queue names that cannot work, saying which and why.

    Args:
        names: what the user gave as ``queues``.
        monitor: the name of the monitor queue.
        queue_type: ``classic`` or ``quorum``.
        sqs_prefix: the prefix of queue names where the broker is Amazon SQS, else None.

    Raises:
        ConfigError: names the queue and the remedy.
    """
    if isinstance(names, (str, bytes)) or not isinstance(names, (list, tuple, set, frozenset)):
        raise ConfigError(f"queues must be a list of queue names, not {names!r}.")
    if not names:
        raise ConfigError(
            "queues is empty: name every queue that this process consumes from or publishes to, "
            'as in Config(queues=["export"]).'
        )
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"queues must be a list of strings; {name!r} is not one.")
        if not name.strip() or name != name.strip():
            raise ConfigError(f"queues holds an empty name or one with outer blanks: {name!r}.")
        if "*" in name or "#" in name:
            raise ConfigError(f"queue {name!r}: '*' and '#' are wildcards of the topic exchange.")
        if len(name.encode()) > MAX_QUEUE_NAME:
            raise ConfigError(f"queue {name[:40]!r}...: longer than {MAX_QUEUE_NAME} bytes.")
        if name == monitor:
            continue
        if name.startswith((DELAY_EXCHANGE_PREFIX, "amq.")):
            raise ConfigError(f"queue {name!r}: names that begin so belong to Celery or RabbitMQ.")
    if queue_type == "quorum":
        _refuse_suffixes(names)
    if sqs_prefix is not None:
        _refuse_sqs_names([*names, monitor], sqs_prefix)


def _refuse_suffixes(names: Iterable[str]) -> None:
    for short in names:
        for long in names:
            if long.endswith("." + short):
                raise ConfigError(
                    f"queues {short!r} and {long!r}: on quorum queues Celery's delayed delivery "
                    f"binds '#.{short}', so a task for {long!r} would run twice. Rename one."
                )


def sqs_name(name: str, prefix: str = "") -> str:
    """The name that kombu gives the queue ``name`` on Amazon SQS: dots become dashes."""
    stem, fifo = (name[:-5], ".fifo") if name.endswith(".fifo") else (name, "")
    return re.sub(r"[^\w-]", lambda m: "-" if m[0] == "." else "_", prefix + stem) + fifo


def _refuse_sqs_names(names: Iterable[str], prefix: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        real = sqs_name(name, prefix)
        if len(real) > SQS_NAME_LENGTH:
            raise ConfigError(
                f"queue {name!r}: Amazon SQS takes {SQS_NAME_LENGTH} characters with the prefix "
                f"{prefix!r}; this has {len(real)}."
            )
        if seen.setdefault(real, name) != name:
            raise ConfigError(f"queues {seen[real]!r} and {name!r} are both {real!r} on SQS.")
