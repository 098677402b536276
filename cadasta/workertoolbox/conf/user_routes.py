"""An app's own ``task_routes``, of which the toolbox takes the queue and leaves the exchange."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from celery.app.routes import prepare
from celery.utils.functional import maybe_evaluate
from kombu import Exchange, Queue

#: Exchanges that a queue can be taken from: a message to one of the others goes to many.
_MOVABLE = ("direct", "topic", "", None)
#: What of a route's answer the toolbox's topology replaces, where the queue is known.
_REPLACED = ("exchange", "exchange_type", "routing_key")


def is_movable(queue: Queue) -> bool:
    """Whether a queue can listen to its own name on the toolbox's exchange as well."""
    return type(queue) is Queue and (not queue.exchange or queue.exchange.type in _MOVABLE)


def routed_queues(routes: Any) -> Iterator[str]:
    """The names of the queues in ``task_routes``, as far as its routers are no functions."""
    if isinstance(routes, UserRoutes):
        routes = routes.routes
    for router in routes if isinstance(routes, list | tuple) else [routes]:
        if isinstance(router, Mapping):
            answers = list(router.values())
        elif isinstance(router, list | tuple):
            answers = [answer for _, answer in router]
        else:
            continue
        for answer in answers:
            queue = answer.get("queue") if isinstance(answer, Mapping) else answer
            name = getattr(queue, "name", queue)
            if isinstance(name, str):
                yield name


class UserRoutes:
    """A router that picks the queue as ``task_routes`` says, whatever exchange leads there.

    Args:
        routes: the setting of Celery.
        queues: the app's queues as it declares them.
        exchange: the app's default exchange.
        default_queue: the name of its default queue.
    """

    def __init__(
        self, routes: Any, queues: tuple[Queue, ...], exchange: Exchange, default_queue: str
    ) -> None:
        self.routes = routes
        self.queues = queues
        self.exchange = exchange
        self.default_queue = default_queue
        self._prepared: list[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prepared": None}

    def __repr__(self) -> str:
        return f"<UserRoutes: {self.routes!r}>"

    def __call__(
        self, name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any
    ) -> dict[str, Any] | None:
        """Return what the routes say of a task, with its queue in place of its address."""
        if self._prepared is None:
            self._prepared = [maybe_evaluate(route) for route in prepare(self.routes)]
        for route in self._prepared:
            if hasattr(route, "route_for_task"):
                answer = route.route_for_task(name, args, kwargs)
            else:
                answer = route(name, args, kwargs, options, task=task)
            if answer is not None:
                return self._on_a_queue({"queue": answer} if isinstance(answer, str) else answer)
        return None

    def _on_a_queue(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        route = dict(answer)
        if route.get("queue") is None:
            queue = self._queue_at(route.get("exchange"), route.get("routing_key"))
            if queue is None:
                return route
            route["queue"] = queue
        queue = route["queue"]
        name = getattr(queue, "name", queue)
        listed = next((one for one in self.queues if name in (one.name, one.alias)), queue)
        if isinstance(listed, Queue) and not is_movable(listed):
            return {**route, "queue": listed}
        for key in _REPLACED:
            route.pop(key, None)
        return route

    def _queue_at(self, exchange: Any, routing_key: Any) -> str | None:
        """The name of the queue that an address leads to; None where it is none of the app's."""
        if exchange is None and routing_key is None:
            return None
        name = getattr(exchange, "name", exchange) or self.exchange.name
        if exchange is None and self.exchange.type == "direct":
            return self.default_queue  # Celery goes by the queue's name then
        for queue in filter(is_movable, self.queues):
            ties = [(queue.exchange, queue.routing_key)] if queue.exchange else []
            ties += [(tie.exchange, tie.routing_key) for tie in queue.bindings or ()]
            for at, pattern in ties:
                if at.name == name and _fits(pattern, routing_key, at.type == "topic"):
                    return str(queue.name)
        return None


def _fits(pattern: str, routing_key: str | None, is_topic: bool) -> bool:
    if not is_topic:
        return pattern == routing_key
    words = {"*": r"[^.]+", "#": r".*"}
    text = r"\.".join(words.get(word, re.escape(word)) for word in pattern.split("."))
    text = text.replace(r"\..*", r"(\..*)?")  # as "media.#", which "media" fits as well
    return re.fullmatch(text, routing_key or "") is not None
