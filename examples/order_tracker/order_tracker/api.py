"""The HTTP API."""

from __future__ import annotations

import logging
from typing import Any

from flask import (
    Flask,
    Response,
    jsonify,
    make_response,
    render_template,
    request,
)
from sqlalchemy import insert, select
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from . import board, reading
from .backlog import add_units, retry_unit
from .database import Database, utc_now
from .errors import BrokerAwayError, RequestError
from .events import Events
from .feeder import Feeder
from .feeding import lock_feed, top_up
from .requests import (
    body_of,
    fingerprint,
    idempotency_key,
    refuse_unknown,
    status_of,
    units_of,
    whole_number,
)
from .statuses import ERROR
from .tables import idempotency_keys

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_PAGE = 1000


def make_api(database: Database, feeder: Feeder, events: Events) -> Flask:
    """The WSGI application.

    Args:
        database: the orders.
        feeder: sends what gets a place.
        events: the streams of ``GET /events`` and of the board.
    """
    api = Flask(__name__, static_folder=None)
    api.url_map.strict_slashes = False
    api.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    api.json.sort_keys = False  # type: ignore[attr-defined]
    api.register_blueprint(board.make_board(database))
    _handle_errors(api)
    _add_feed_routes(api, database, feeder)
    _add_order_routes(api, database, feeder)

    @api.get("/events")
    def stream() -> Response:
        refuse_unknown(request.args, "after")
        text = request.headers.get("Last-Event-ID") or request.args.get("after")
        after = None
        if text:
            after = whole_number({"Last-Event-ID": text}, "Last-Event-ID", 0, 0)
        opened = events.open(after)
        if opened is None:
            raise TooManyStreams
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return Response(opened, mimetype="text/event-stream", headers=headers)

    return api


class TooManyStreams(Exception):
    """This process has no thread left for another stream."""


def _add_feed_routes(api: Flask, database: Database, feeder: Feeder) -> None:
    @api.get("/")
    def standing() -> Response:
        refuse_unknown(request.args)
        with database.read() as connection:
            return jsonify(reading.summary(connection).to_dict())

    @api.get("/next")
    def next_in_line() -> Response:
        refuse_unknown(request.args, "limit")
        limit = whole_number(request.args, "limit", 10, 1, MAX_PAGE)
        with database.read() as connection:
            return jsonify({"orders": reading.next_in_line(connection, limit)})

    @api.route("/go", methods=["GET", "POST"])
    def go() -> Response:
        refuse_unknown(request.args)
        sent = feeder.go()
        with database.read() as connection:
            standing = reading.summary(connection).to_dict()
        return jsonify({"sent": [one.order_id for one in sent], **standing})

    @api.post("/stop")
    def stop() -> Response:
        refuse_unknown(request.args)
        feeder.stop()
        with database.read() as connection:
            return jsonify(reading.summary(connection).to_dict())


def _add_order_routes(api: Flask, database: Database, feeder: Feeder) -> None:
    @api.get("/orders")
    def page() -> Response:
        refuse_unknown(request.args, "status", "limit", "after")
        status = status_of(request.args)
        limit = whole_number(request.args, "limit", 100, 1, MAX_PAGE)
        after = whole_number(request.args, "after", 0, 0)
        with database.read() as connection:
            units, following = reading.page(connection, status, limit, after)
        return jsonify({"orders": units, "next": following})

    @api.post("/orders")
    def add() -> tuple[Response, int, dict[str, str]]:
        refuse_unknown(request.args)
        key = idempotency_key(request.headers.get("Idempotency-Key"))
        body = body_of(request.mimetype, request.get_data())
        units, many = units_of(body)
        with database.write() as connection:
            state = lock_feed(connection)
            if key is not None:
                query = select(idempotency_keys).where(idempotency_keys.c.key == key)
                first = connection.execute(query).one_or_none()
                if first is not None:
                    if first.fingerprint != fingerprint(body):
                        raise RequestError(
                            "this key was used for another body: use a new one.",
                            422,
                            "Idempotency-Key",
                        )
                    return jsonify(first.answer), 201, _location(first.answer)
            now = utc_now()
            ids = add_units(connection, units, now, feeder.name)
            made = [
                {"id": order_id, "status": "pending", "priority": one.priority}
                for order_id, one in zip(ids, units, strict=True)
            ]
            answer: dict[str, Any] = {"orders": made} if many else made[0]
            if key is not None:
                row = {
                    "key": key,
                    "fingerprint": fingerprint(body),
                    "answer": answer,
                    "created_at": now,
                }
                connection.execute(insert(idempotency_keys).values(row))
            fed = top_up(connection, state, now, feeder.name)
        feeder.publish_or_leave(fed)
        return jsonify(answer), 201, _location(answer)

    @api.get("/orders/<int:order_id>")
    def unit(order_id: int) -> Response:
        refuse_unknown(request.args)
        return jsonify(_unit(database, order_id))

    @api.post("/orders/<int:order_id>/retry")
    def retry(order_id: int) -> Response:
        refuse_unknown(request.args)
        _check_id(order_id)
        with database.write() as connection:
            state = lock_feed(connection)
            now = utc_now()
            found = retry_unit(connection, order_id, now, feeder.name)
            if found is None:
                raise _no_unit(order_id)
            if found != ERROR:
                raise RequestError(
                    f"unit {order_id} is {found}: only one in error can be tried again.", 409
                )
            fed = top_up(connection, state, now, feeder.name)
        feeder.publish_or_leave(fed)
        return jsonify(_unit(database, order_id))


def _unit(database: Database, order_id: int) -> dict[str, Any]:
    _check_id(order_id)
    with database.read() as connection:
        found = reading.unit(connection, order_id)
    if found is None:
        raise _no_unit(order_id)
    return found


def _check_id(order_id: int) -> None:
    if order_id >= 2**63:
        raise _no_unit(order_id)


def _no_unit(order_id: int) -> RequestError:
    return RequestError(f"there is no unit {order_id}.", 404)


def _location(answer: dict[str, Any]) -> dict[str, str]:
    return {"Location": f"/orders/{answer['id']}"} if "id" in answer else {}


def _handle_errors(api: Flask) -> None:
    def answer(status: int, message: str, field: str | None = None) -> Response:
        if request.path.startswith("/board") and request.accept_mimetypes.accept_html:
            made = make_response(render_template("error.html", message=message))
        else:
            error = {"status": status, "message": message, **({"field": field} if field else {})}
            made = jsonify({"error": error})
        made.status_code = status
        return made

    @api.errorhandler(RequestError)
    def request_error(error: RequestError) -> Response:
        return answer(error.status, error.message, error.field)

    @api.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Any:
        status = error.code or 500
        if status < 400:
            return error  # a redirection
        allowed = dict(error.get_headers()).get("Allow")
        reasons = {
            404: "there is nothing at this path.",
            405: f"the method is not allowed here; {allowed} are.",
            413: f"the body has more than {MAX_BODY_BYTES} bytes.",
        }
        made = answer(status, f"{request.method} {request.path}: {reasons.get(status, error.name)}")
        if allowed:
            made.headers["Allow"] = allowed
        return made

    @api.errorhandler(BrokerAwayError)
    def broker_away(error: Exception) -> Response:
        logger.warning("The broker cannot be reached: %s", error)
        return answer(
            503,
            "the feeding has started, but the broker cannot be reached: the units are sent by"
            " themselves when it can.",
        )

    @api.errorhandler(SQLAlchemyError)
    def database_away(error: Exception) -> Response:
        logger.error("The database failed: %s", type(error).__name__, exc_info=True)
        return answer(503, "the database cannot be used at the moment; try again.")

    @api.errorhandler(TooManyStreams)
    def too_many(_: Exception) -> Response:
        return answer(503, "this process has no room for another stream; try again later.")
