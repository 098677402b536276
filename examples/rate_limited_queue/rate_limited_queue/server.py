"""``rate-limited-queue serve``: the HTTP server, with its embedded store where none is named."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import sys
from pathlib import Path
from typing import Any

import uvicorn
import uvicorn.config

from . import embedded
from .errors import SettingsError
from .settings import FILE_VARIABLE, SECTIONS, Settings
from .web.app import Application


def serve(settings: Settings, path: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: the settings.
        path: the file that they came from, for worker processes.

    Raises:
        SettingsError: the access log or the embedded store cannot be used.
        StoreUnavailable: the embedded store does not start.
    """
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "workers": settings.workers,
        "log_config": _log_config(settings.accesslog),
        "access_log": bool(settings.accesslog),
        "server_header": False,
        "date_header": False,
        "lifespan": "on",
        "ws": "none",
        "timeout_graceful_shutdown": 10,
    }
    # uvicorn ends well at SIGTERM, and then sends it once more to whom it found before.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.ExitStack() as stack:
        if settings.redis_conn_type == "embedded":
            stack.enter_context(embedded.running(settings.redis_directory))
        if settings.workers > 1:
            # The worker processes read the settings anew.
            if path:
                os.environ[FILE_VARIABLE] = str(Path(path).resolve())
            os.environ[SECTIONS["redis"] + "CONN_TYPE"] = settings.redis_conn_type
            uvicorn.run("rate_limited_queue.web.app:create", factory=True, **options)
        else:
            uvicorn.run(Application(settings), **options)


def _log_config(accesslog: str) -> dict[str, Any]:
    config: dict[str, Any] = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    config["loggers"]["rate_limited_queue"] = {"handlers": ["default"], "level": "INFO"}
    if accesslog:
        try:
            Path(accesslog).parent.mkdir(parents=True, exist_ok=True)
            open(accesslog, "a").close()
        except OSError as error:
            raise SettingsError(
                f"[sharq-server] accesslog {accesslog} cannot be written: {error}."
            ) from None
        config["formatters"]["access"]["use_colors"] = False
        config["formatters"]["access"]["fmt"] = (
            '%(asctime)s %(client_addr)s "%(request_line)s" %(status_code)s'
        )
        config["handlers"]["access"] = {
            "class": "logging.handlers.WatchedFileHandler",
            "filename": accesslog,
            "formatter": "access",
        }
    return config
