"""The simulator's HTTP server."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any

from werkzeug import Request, Response
from werkzeug.routing import Map, Rule

from ..web import answer, application, json_answer, json_body, serve
from .behaviour import Behaviour, Log
from .callbacks import Callbacks
from .forms import chikka_receipt

#: Units of UTF-16 of the longest text.
LONGEST_MESSAGE = 1600
#: The fields that Chikka asks for.
CHIKKA_FIELDS = (
    "message_type",
    "mobile_number",
    "shortcode",
    "message_id",
    "message",
    "client_id",
    "secret_key",
)


class Simulator:
    """A provider of both kinds.

    Args:
        gateway: the URL that texts and receipts are posted to.
        auth_token: what Twilio's callbacks are signed with.
    """

    def __init__(self, gateway: str, auth_token: str = "") -> None:
        self.behaviour = Behaviour()
        self.log = Log()
        self.callbacks = Callbacks(gateway.rstrip("/"), auth_token, self.log)
        messages = "/2010-04-01/Accounts/<account>/Messages.json"
        self._map = Map(
            [
                Rule("/smsapi/request", methods=["POST"], endpoint=self.chikka),
                Rule(messages, methods=["POST"], endpoint=self.twilio),
                Rule(messages, methods=["GET"], endpoint=self.twilio_list),
                Rule("/texts", methods=["POST"], endpoint=self.post_text),
                Rule("/control", methods=["GET", "POST"], endpoint=self.control),
                Rule("/sent", methods=["GET"], endpoint=self.sent),
                Rule("/sent", methods=["DELETE"], endpoint=self.clear),
                Rule("/requests", methods=["GET"], endpoint=self.requests),
                Rule("/posted", methods=["GET"], endpoint=self.posted),
                Rule("/health", methods=["GET"], endpoint=self.health),
            ]
        )

    def dispatch(self, request: Request) -> Response:
        """Answer a request."""
        endpoint, arguments = self._map.bind_to_environ(request.environ).match()
        handler: Callable[..., Response] = endpoint
        return handler(request, **arguments)

    # -- sending, as the providers have it

    def chikka(self, request: Request) -> Response:
        """Chikka's address for sending. A message id that is known is a repetition."""
        form = request.form
        missing = [name for name in CHIKKA_FIELDS if name not in form]
        if form.get("message_type") == "REPLY":
            missing += [name for name in ("request_id", "request_cost") if name not in form]
        if missing or len(form["message_id"]) > 32:
            what = ", ".join(missing) or "message_id"
            return answer(400, "BAD REQUEST", description=f"Invalid parameters: {what}")
        if _length(form["message"]) > LONGEST_MESSAGE:
            return answer(400, "BAD REQUEST", description="Message too long")
        message_id, number = form["message_id"], form["mobile_number"]
        shortcode, status = form["shortcode"], self.behaviour.receipt_status or "SENT"

        def send() -> None:
            if self._note(message_id, number, form["message"], shortcode):
                url = f"{self.callbacks.url}/notification"
                self._receipt(url, chikka_receipt(message_id, status, shortcode))

        wrong = self._misbehave(message_id, send)
        if wrong is not None:
            return wrong
        send()
        return answer(200, "ACCEPTED")

    def twilio(self, request: Request, account: str) -> Response:
        """Twilio's address for sending. Every request is a new message."""
        form = request.form
        missing = [name for name in ("To", "From", "Body") if not form.get(name)]
        if missing:
            words = f"A '{missing[0]}' is required."
            return json_answer({"code": 21604, "message": words, "status": 400}, 400)
        if request.authorization is None or request.authorization.username != account:
            return json_answer({"code": 20003, "message": "Authenticate", "status": 401}, 401)
        if _length(form["Body"]) > LONGEST_MESSAGE:
            words = "The concatenated message body exceeds the 1600 character limit."
            return json_answer({"code": 21617, "message": words, "status": 400}, 400)
        sid = f"SM{secrets.token_hex(16)}"
        callback = form.get("StatusCallback")

        def send() -> None:
            self._note(sid, form["To"], form["Body"], form["From"])
            if callback:
                status = self.behaviour.receipt_status or "delivered"
                receipt = {"MessageSid": sid, "MessageStatus": status, "To": form["To"]}
                if self.behaviour.receipt_error:
                    receipt["ErrorCode"] = self.behaviour.receipt_error
                self._receipt(callback, receipt)

        wrong = self._misbehave(sid, send)
        if wrong is not None:
            return wrong
        send()
        return json_answer({"sid": sid, "status": "queued", "to": form["To"]}, 201)

    def twilio_list(self, request: Request, account: str) -> Response:
        """Twilio's list of messages, newest first, with its filters To and From."""
        wanted = request.args
        limit = wanted.get("PageSize", 50, type=int)
        found = [
            {
                "sid": one["message_id"],
                "to": one["mobile_number"],
                "from": one["shortcode"],
                "body": one["message"],
                "date_created": format_datetime(datetime.fromisoformat(one["at"])),
            }
            for one in reversed(self.log.sent())
            if wanted.get("To", one["mobile_number"]) == one["mobile_number"]
            and wanted.get("From", one["shortcode"]) == one["shortcode"]
        ]
        return json_answer({"messages": found[:limit]})

    # -- what the simulator is for

    def post_text(self, request: Request) -> Response:
        """Post a text to the gateway: JSON mobile_number, message, shortcode, provider, fields."""
        try:
            body = json_body(request)
        except ValueError as error:
            return answer(400, str(error))
        for name in ("mobile_number", "message"):
            if not isinstance(body.get(name), str):
                return answer(400, f"{name}: is missing")
        more = body.get("fields", {})
        if not isinstance(more, dict) or not all(isinstance(one, str) for one in more.values()):
            return answer(400, "fields: give an object of texts")
        return json_answer(
            self.callbacks.post_text(
                self.behaviour,
                str(body.get("provider", "chikka")),
                body["mobile_number"],
                str(body.get("shortcode", "2929")),
                body["message"],
                more,
            )
        )

    def control(self, request: Request) -> Response:
        """Show the behaviour, or change it."""
        if request.method == "POST":
            try:
                self.behaviour = self.behaviour.changed(json_body(request))
            except ValueError as error:
                return answer(400, str(error))
        return json_answer(vars(self.behaviour))

    def sent(self, request: Request) -> Response:
        """The texts that were sent, each once, oldest first."""
        return json_answer(self.log.sent())

    def clear(self, request: Request) -> Response:
        """Forget what was sent and posted."""
        self.log.clear()
        return answer(200, "OK")

    def requests(self, request: Request) -> Response:
        """Every request to send, with its answer."""
        return json_answer(self.log.requests())

    def posted(self, request: Request) -> Response:
        """Every post to the gateway, with its answer."""
        return json_answer(self.log.posted())

    def health(self, request: Request) -> Response:
        """Whether it runs."""
        return answer(200, "OK")

    # -- parts

    def _note(self, message_id: str, number: str, message: str, shortcode: str) -> bool:
        return self.log.note_sent(
            message_id, mobile_number=number, message=message, shortcode=shortcode, at=_now()
        )

    def _receipt(self, url: str, form: dict[str, str]) -> None:
        if self.behaviour.receipts:
            self.callbacks.post_receipt(self.behaviour, url, form)

    def _misbehave(self, message_id: str, send: Callable[[], None]) -> Response | None:
        """The answer where this attempt goes wrong, else None."""
        behaviour = self.behaviour
        failure = behaviour.failure()
        self.log.note_request(message_id=message_id, failure=failure, at=_now())
        if failure is None:
            return None
        if failure.endswith("_after"):
            send()
        if failure.startswith("timeout"):
            time.sleep(behaviour.delay)
        if failure == "limit":
            response = answer(429, "TOO MANY REQUESTS")
            response.headers["Retry-After"] = str(behaviour.retry_after)
            return response
        if failure == "opted_out":
            words = "Attempt to send to unsubscribed recipient"
            return json_answer({"code": 21610, "message": words, "status": 400}, 400)
        if failure == "reject":
            return answer(400, "BAD REQUEST", description="Invalid mobile number")
        return answer(500, "INTERNAL SERVER ERROR")


def _length(message: str) -> int:
    return len(message.encode("utf-16-le", "replace")) // 2


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()


def make_app() -> Callable[..., Any]:
    """The simulator as a WSGI application, with its settings from the environment."""
    gateway = os.environ.get("SMS_GATEWAY_URL") or "http://127.0.0.1:8000"
    simulator = Simulator(gateway, os.environ.get("TWILIO_AUTH_TOKEN", ""))
    return application(simulator.dispatch)


def main() -> None:
    """Serve it on ``SMS_SIMULATOR_HOST``:``SMS_SIMULATOR_PORT``, default 127.0.0.1:8001."""
    host = os.environ.get("SMS_SIMULATOR_HOST") or "127.0.0.1"
    serve(make_app(), host, int(os.environ.get("SMS_SIMULATOR_PORT") or 8001), threads=64)
