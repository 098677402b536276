"""The ASGI application: paths to calls, and errors to answers."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from types import FrameType
from typing import Any

from .. import settings as settings_module
from ..errors import InvalidField, StoreUnavailable, TooLarge
from ..settings import Settings
from ..store import Store
from ..upkeep import keep_up
from ..waiters import Waiters
from .jobs import Jobs
from .messages import (
    Answer,
    BadBody,
    Disconnected,
    Receive,
    Request,
    Scope,
    Send,
    failure,
)
from .queues import Queues

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Answer]]


class Application:
    """The HTTP API as an ASGI application.

    Args:
        settings: the settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._token = settings.token.encode()
        self._routes: dict[tuple[str, int], dict[str, Handler]] = {}
        self._stack = contextlib.AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def start(self) -> None:
        """Connect, and begin what runs beside the requests."""
        store = await self._stack.enter_async_context(Store(self._settings))
        waiters = Waiters(store)
        self._stack.push_async_callback(waiters.close)
        _at_a_signal(waiters.end)
        if self._settings.enable_requeue_script:
            upkeep = asyncio.get_running_loop().create_task(keep_up(store))
            self._stack.push_async_callback(_cancel, upkeep)
        self._routes = routes(Jobs(store, waiters), Queues(store, waiters))

    async def stop(self) -> None:
        """End what :meth:`start` began."""
        await self._stack.aclose()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            found = await self._answer(scope, receive)
        except Disconnected:
            return
        headers = [
            (b"content-type", found.content_type),
            (b"content-length", b"%d" % len(found.body)),
            *found.headers,
        ]
        await send({"type": "http.response.start", "status": found.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else found.body
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        path: str = scope["path"]
        # An empty segment is an empty identifier, which is an error, unless it ends the path.
        segments = path[1:-1].split("/") if path.endswith("/") else path[1:].split("/")
        name, parameters = segments[0], tuple(segments[1:])
        methods = self._routes.get((name, len(parameters)))
        if methods is None:
            return failure(404, f"There is no {path[:200]!r}. /openapi.json lists what there is.")
        method = scope["method"]
        # A HEAD request must change nothing, and a dequeue does.
        handler = methods.get("GET" if method == "HEAD" and name != "dequeue" else method)
        if handler is None:
            return failure(405, f"{method} is not allowed here.", allow=", ".join(methods))
        if self._token and name and not self._authorized(scope):
            return failure(401, "A bearer token is needed.", www_authenticate="Bearer")
        try:
            return await handler(Request(scope, receive, parameters))
        except (InvalidField, BadBody) as error:
            return failure(400, str(error))
        except TooLarge as error:
            return failure(413, str(error), connection="close")
        except StoreUnavailable as error:
            logger.warning("%s %s: %s", method, path, error)
            return failure(503, "The store is away. Try again.", retry_after="1")
        except Disconnected:
            raise
        except Exception:
            logger.exception("%s %s failed", method, path)
            return failure(500, "The server failed; its log says why.")

    def _authorized(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == b"authorization":
                scheme, _, token = value.partition(b" ")
                return scheme.lower() == b"bearer" and hmac.compare_digest(
                    token.strip(), self._token
                )
        return False


def _at_a_signal(call: Callable[[], None]) -> None:
    """Call when the process is asked to end: uvicorn waits for all answers before it says so."""
    loop = asyncio.get_running_loop()

    def handler(before: Any, number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(call)
        if callable(before):
            before(number, frame)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, partial(handler, signal.getsignal(number)))


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def routes(jobs: Jobs, queues: Queues) -> dict[tuple[str, int], dict[str, Handler]]:
    """Return the calls by the first segment of the path, the count of the others, and method."""

    return {
        ("", 0): {"GET": queues.index},
        ("enqueue", 1): {"POST": jobs.enqueue_batch},
        ("enqueue", 2): {"POST": jobs.enqueue},
        ("dequeue", 0): {"GET": jobs.dequeue},
        ("dequeue", 1): {"GET": jobs.dequeue},
        ("finish", 0): {"POST": jobs.finish_batch},
        ("finish", 3): {"POST": jobs.finish},
        ("job", 3): {"GET": jobs.job},
        ("interval", 2): {"POST": queues.interval},
        ("metrics", 0): {"GET": queues.metrics},
        ("metrics", 1): {"GET": queues.metrics_of_type},
        ("metrics", 2): {"GET": queues.metrics_of_queue},
        ("deletequeue", 2): {"DELETE": queues.delete},
        ("dead", 1): {"GET": queues.dead, "DELETE": queues.forget_dead},
        ("deepstatus", 0): {"GET": queues.deep_status},
        ("prometheus", 0): {"GET": queues.prometheus},
        ("openapi.json", 0): {"GET": queues.document},
    }


def create() -> Application:
    """Return the application with the settings that the environment names, for a worker process."""
    return Application(settings_module.load())
