"""What the api and the simulator share: answers as JSON, and the server."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

from werkzeug import Request, Response
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

#: Bytes of the largest body that is read.
LARGEST_BODY = 65_536
#: Bytes that are thrown away of a larger one, so that the client reads our answer.
LARGEST_WASTE = 1_048_576
#: Threads of the one process that ``python -m sms_gateway api`` runs.
THREADS = 16


class BoundedRequest(Request):
    """A request whose body has at most :data:`LARGEST_BODY` bytes; else it is a 413."""

    max_content_length = LARGEST_BODY
    max_form_memory_size = LARGEST_BODY


def answer(status: int, message: str, **more: Any) -> Response:
    """An answer in the form that all have: its status and a message, and what it holds."""
    return json_answer({"status": status, "message": message, **more}, status)


def json_answer(content: Any, status: int = 200) -> Response:
    """An answer of any JSON."""
    return Response(json.dumps(content), status, content_type="application/json")


def error_answer(error: HTTPException) -> Response:
    """The answer for an error of werkzeug: what is not served is not found."""
    if error.code in (404, 405):
        return answer(404, "NOT FOUND")
    return answer(error.code or 500, (error.name or "error").upper())


def waste_body(request: Request) -> None:
    """Read what is left of a body that is too large: a client that still writes does not read."""
    stream = request.environ["wsgi.input"]
    left = LARGEST_WASTE
    while left > 0 and (piece := stream.read(min(left, LARGEST_BODY))):
        left -= len(piece)


def read_chunks(environ: Any) -> None:
    """Read a body whose length nobody told; werkzeug would cut it at its bound without a word.

    Raises:
        RequestEntityTooLarge: it has more than :data:`LARGEST_BODY` bytes.
    """
    if "CONTENT_LENGTH" in environ or not environ.get("HTTP_TRANSFER_ENCODING"):
        return
    body = b""
    while piece := environ["wsgi.input"].read(LARGEST_BODY + 1 - len(body)):
        body += piece
        if len(body) > LARGEST_BODY:
            raise RequestEntityTooLarge
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))


def application(dispatch: Callable[[Request], Response]) -> Callable[..., Any]:
    """A WSGI application that answers a request by ``dispatch``, and its errors as JSON."""

    def call(environ: Any, start_response: Any) -> Any:
        request = BoundedRequest(environ)
        try:
            read_chunks(environ)
            response = dispatch(request)
        except RequestEntityTooLarge as error:
            waste_body(request)
            response = error_answer(error)
        except HTTPException as error:
            response = error_answer(error)
        return response(environ, start_response)

    return call


def json_body(request: Request) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        ValueError: it is none.
    """
    try:
        found = json.loads(request.get_data())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def serve(app: Callable[..., Any], host: str, port: int, threads: int = THREADS) -> None:
    """Serve a WSGI application by gunicorn, in one process, until SIGTERM or SIGINT."""
    # Here, since a process that gunicorn itself started has no need of it.
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

    class Server(BaseApplication):
        def load_config(self) -> None:
            self.cfg.set("bind", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            self.cfg.set("worker_class", "gthread")
            self.cfg.set("threads", threads)
            self.cfg.set("workers", 1)
            self.cfg.set("keepalive", 60)
            self.cfg.set("control_socket_disable", True)  # its place is one for all

        def load(self) -> Any:
            return app

    Server().run()
