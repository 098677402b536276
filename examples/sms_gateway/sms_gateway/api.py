"""The HTTP api: what a provider posts goes on a queue before it is answered; operators may look.

Nothing here writes to the database but the row of a broadcast, and a text needs none: while the
database is away, texts are accepted and wait on their queue.
"""

from __future__ import annotations

import hmac
import logging
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from werkzeug import Request, Response
from werkzeug.exceptions import NotFound
from werkzeug.routing import Map, Rule

from . import ids
from .celery import app
from .database import Database
from .errors import CallerError, FieldError, QueueUnavailableError
from .keywords import keywords
from .providers import LONGEST_MESSAGES, Callback, Provider
from .publishing import publish
from .runtime import database, provider
from .segments import measure
from .settings import Settings, settings
from .store import broadcasts, inbound
from .tasks.envelope import pack_inbound, pack_receipt
from .web import answer, application, json_answer, json_body

logger = logging.getLogger(__name__)

#: Seconds after which a provider should post again what could not be taken.
RETRY_AFTER = 10
#: Seconds until the broker is called down.
BROKER_PATIENCE = 3


class Api:
    """The requests of the HTTP contract.

    Args:
        settings: the gateway's settings.
        provider: who posts texts and receipts.
        database: where conversations are looked up.
    """

    def __init__(self, settings: Settings, provider: Provider, database: Database) -> None:
        self.provider = provider
        self.database = database
        self._token = settings.operator_token
        rules = [
            Rule("/message", methods=["POST"], endpoint=self.post_message),
            Rule("/notification", methods=["POST"], endpoint=self.post_notification),
            Rule("/health", methods=["GET"], endpoint=self.get_health),
        ]
        if self._token is not None:
            rules += [
                Rule("/broadcast", methods=["POST"], endpoint=self.post_broadcast),
                Rule("/broadcast/<broadcast_id>", methods=["GET"], endpoint=self.get_broadcast),
                Rule("/messages/<request_id>", methods=["GET"], endpoint=self.get_conversation),
            ]
        self._map = Map(rules, merge_slashes=False, strict_slashes=True)

    def dispatch(self, request: Request) -> Response:
        """Answer a request; raises werkzeug's HTTPException where there is no such route."""
        adapter = self._map.bind_to_environ(request.environ)
        endpoint, arguments = adapter.match()
        handler: Callable[..., Response] = endpoint
        if any("\0" in value for value in arguments.values()):  # PostgreSQL cannot be asked for it
            raise NotFound
        try:
            return handler(request, **arguments)
        except FieldError as error:
            return answer(400, str(error))
        except CallerError as error:
            return answer(403, str(error))
        except UnauthorizedError:
            response = answer(401, "UNAUTHORIZED: send the operator's token as a bearer token")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        except QueueUnavailableError as error:
            logger.error("The broker took no task: %s", error, exc_info=error.__cause__)
            return unavailable("the broker is down")
        except SQLAlchemyError as error:
            logger.error("The database did not answer: %s", type(error).__name__)
            return unavailable("the database is down")

    def post_message(self, request: Request) -> Response:
        """A text: accepted once it is on a queue."""
        text = self.provider.parse_inbound(self._callback(request))
        task_id = ids.text_id(self.provider.name, text.request_id)
        publish("message.receive", [self.provider.name, pack_inbound(text)], task_id)
        return answer(202, "ACCEPTED")

    def post_notification(self, request: Request) -> Response:
        """A delivery receipt."""
        receipt = self.provider.parse_receipt(self._callback(request))
        name = self.provider.name
        about = receipt.message_id or receipt.provider_ref or ""
        # Not by the state alone: a provider's words for one state may differ in what they add.
        task_id = ids.receipt_id(name, about, "\0".join(sorted(receipt.posted.values())))
        publish("notification.receive", [name, pack_receipt(receipt)], task_id)
        return answer(202, "ACCEPTED")

    def post_broadcast(self, request: Request) -> Response:
        """A text for all subscribers of a keyword."""
        self._check_operator(request)
        keyword, message = read_broadcast(request, self.provider.name)
        key = request.headers.get("Idempotency-Key", "").strip()
        broadcast_id = ids.broadcast_id(key) if key else str(uuid.uuid4())
        created_at = datetime.now(timezone.utc).isoformat()
        args = [broadcast_id, self.provider.name, keyword, message, created_at]
        publish("broadcast.start", args, broadcast_id)
        try:
            # The task would do it, in a moment; so that it can be looked up at once.
            with self.database.transaction() as connection:
                broadcasts.create(connection, broadcast_id, keyword, message, created_at)
                is_same = broadcasts.is_same(connection, broadcast_id, keyword, message)
        except SQLAlchemyError as error:
            logger.warning("Broadcast %s is queued, not stored: %s", broadcast_id, error.code)
        else:
            if not is_same:  # what is queued finds the other one, and changes nothing
                raise FieldError("Idempotency-Key", "was used for another broadcast; use a new one")
        segments = measure(message).segments
        return answer(202, "ACCEPTED", id=broadcast_id, segments=segments)

    def get_broadcast(self, request: Request, broadcast_id: str) -> Response:
        """How far a broadcast is."""
        self._check_operator(request)
        with self.database.reading() as connection:
            found = broadcasts.progress(connection, broadcast_id)
        return found_or_404(found)

    def get_conversation(self, request: Request, request_id: str) -> Response:
        """A text, its reply and what became of it."""
        self._check_operator(request)
        with self.database.reading() as connection:
            found = inbound.conversation(connection, self.provider.name, request_id)
        return found_or_404(found)

    def get_health(self, request: Request) -> Response:
        """Whether the broker and the database answer."""
        parts = {"broker": check_broker, "database": self.database.check}
        down = []
        for name, check in parts.items():
            try:
                check()
            except Exception as error:  # whatever it is, the part does not work
                logger.warning("Health: %s: %s", name, type(error).__name__)
                down.append(name)
        if down:
            return unavailable(" and ".join(f"the {name} is down" for name in down), down=down)
        return answer(200, "OK")

    def _callback(self, request: Request) -> Callback:
        found = Callback(
            url=lambda: called_url(request),  # it takes time, and not every provider asks
            form=request.form,
            query=request.args.to_dict(),
            headers=request.headers,  # type: ignore[arg-type]  # a mapping in all but its base
        )
        self.provider.verify(found)
        return found

    def _check_operator(self, request: Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        expected = (self._token or "").encode()
        is_right = hmac.compare_digest(token.strip().encode(), expected)
        if scheme.lower() != "bearer" or not is_right or not expected:
            raise UnauthorizedError


class UnauthorizedError(Exception):
    """An operator's route was asked for without the token."""


def read_broadcast(request: Request, provider: str) -> tuple[str, str]:
    """The keyword and the text of a broadcast that the provider takes; raises FieldError."""
    try:
        body = json_body(request)
    except ValueError as error:
        raise FieldError("body", f"is no JSON object ({error})") from None
    for name in ("keyword", "message"):
        if name not in body:
            raise FieldError(name, "is missing")
        if not isinstance(body[name], str) or not body[name].strip():
            raise FieldError(name, "is no text")
    keyword, message = body["keyword"].strip().lower(), body["message"]
    if keyword not in keywords():
        known = ", ".join(keywords())
        raise FieldError("keyword", f"is {keyword[:40]!r}; there is {known}")
    if "\0" in message or any("\ud800" <= sign <= "\udfff" for sign in message):
        raise FieldError("message", "holds a character that is none")
    size, longest = measure(message), LONGEST_MESSAGES[provider]
    if size.units > longest:
        problem = f"takes {size.units} units of {size.encoding}; {provider} takes {longest} at most"
        raise FieldError("message", problem)
    return keyword, message


def called_url(request: Request) -> str:
    """The address as the caller wrote it: one that signs it signs each of its signs."""
    target = str(request.environ.get("RAW_URI", ""))  # gunicorn's; werkzeug decodes some of it
    return request.host_url.rstrip("/") + target if target.startswith("/") else request.url


def check_broker() -> None:
    """Connect to the broker; raises its client's error where that is not possible."""
    with app.connection_for_write(connect_timeout=BROKER_PATIENCE) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=BROKER_PATIENCE)
        connection.default_channel.close()


def unavailable(message: str, **more: Any) -> Response:
    """A 503 that asks to come back."""
    response = answer(503, message, **more)
    response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


def found_or_404(found: Any) -> Response:
    """What was found, or a 404."""
    if found is None:
        raise NotFound
    return json_answer(found)


def make_app() -> Callable[..., Any]:
    """The WSGI application of this process's settings.

    Raises:
        SettingsError: one of them cannot work.
    """
    return application(Api(settings(), provider(), database()).dispatch)
