"""The exchange, its queues, and the routing to them. Pure: nothing here talks to a broker.

Each work queue listens on one topic exchange to its own name; the monitor queue listens to
everything, so the broker itself makes the copy that the ledger is built from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from celery._state import get_current_worker_task
from kombu import Queue
from kombu.common import Broadcast

from ..errors import ConfigError, TopologyError
from ..plain.masking import masked
from .names import DEFAULT_QUEUE, is_monitored, plain_routing_key
from .queues import published

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
                "declare": Declaration([published(queue), published(self.monitor)], self),
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


def router_of(app: Any) -> Router:
    """The router of an app that is configured by ``Config``.

    Raises:
        ConfigError: it has none.
    """
    app.amqp.queues  # noqa: B018 - Celery completes the arguments of all queues here
    if not isinstance(app.conf.task_routes, Router):
        app.finalize()  # when routes of the app's own are put under ours
    router = app.conf.task_routes
    if not isinstance(router, Router):
        raise ConfigError(
            f"app {app.main!r} is not configured by the toolbox: use "
            f"app.config_from_object(Config(queues=[...])), or adopt(app) where it has settings of "
            f"its own. Its task_routes is {masked(router)!r}."
        )
    return router
