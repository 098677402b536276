"""The board: a live page, and the history of a unit."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, Response, jsonify, make_response, render_template, request

from . import reading
from .database import Database, utc_now
from .requests import refuse_unknown, whole_number
from .statuses import STATUSES

#: Units that a column shows.
CARDS = 24
#: Seconds that the chart looks back.
CHART_SECONDS = 600
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:"
)


def make_board(database: Database) -> Blueprint:
    """The pages below ``/board``."""
    board = Blueprint("board", __name__, static_folder="static", static_url_path="/board/static")

    @board.get("/board")
    def page() -> Response:
        with database.read() as connection:
            standing = reading.summary(connection)
            columns = {name: reading.latest(connection, name, CARDS) for name in STATUSES}
            curve = reading.utilisation(connection, utc_now(), CHART_SECONDS)
        return _page(
            "board.html",
            standing=standing,
            columns=columns,
            curve=curve,
            cards=CARDS,
            chart_seconds=CHART_SECONDS,
        )

    @board.get("/board/columns")
    def columns() -> Response:
        refuse_unknown(request.args)
        with database.read() as connection:
            return jsonify({name: reading.latest(connection, name, CARDS) for name in STATUSES})

    @board.get("/board/<int:order_id>")
    def unit(order_id: int) -> Response:
        with database.read() as connection:
            found = reading.unit(connection, min(order_id, 2**63 - 1))
        # As text; the template's own tojson would write < and & in another way.
        payload = json.dumps(found["payload"], indent=2, ensure_ascii=False) if found else ""
        answer = _page("unit.html", unit=found, order_id=order_id, payload=payload)
        answer.status_code = 200 if found else 404
        return answer

    @board.get("/board/utilisation")
    def utilisation() -> Response:
        refuse_unknown(request.args, "seconds")
        seconds = whole_number(request.args, "seconds", CHART_SECONDS, 1, 86_400)
        with database.read() as connection:
            curve = reading.utilisation(connection, utc_now(), seconds)
        return jsonify({"points": curve})

    return board


def _page(template: str, **values: Any) -> Response:
    page = make_response(render_template(template, **values))
    page.headers["Content-Security-Policy"] = _POLICY
    page.headers["Cache-Control"] = "no-store"
    return page
