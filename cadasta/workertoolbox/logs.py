"""Log files that rotate, and reports to Sentry."""

from __future__ import annotations

import logging
import os
from logging.handlers import RotatingFileHandler
from typing import Any

from .errors import ConfigError

#: Each log file is rotated at this size, in bytes, and this many old ones are kept.
MAX_BYTES = 10 * 2**20
BACKUPS = 5
FORMAT = "%(asctime)s %(levelname)s %(processName)s %(name)s: %(message)s"


def log_to_files(folder: str | bool) -> None:
    """Write the root logger's records to ``app.info.log`` and its errors to ``app.error.log``.

    A file is rotated at 10 MiB and five old ones are kept. Calling it again changes nothing.

    Args:
        folder: where the files go; True means the current folder.

    Raises:
        ConfigError: the folder cannot be written.
    """
    where = os.getcwd() if folder is True else os.path.abspath(os.path.expanduser(str(folder)))
    root = logging.getLogger()
    known = {getattr(handler, "baseFilename", None) for handler in root.handlers}
    for name, level in (("app.info.log", logging.INFO), ("app.error.log", logging.ERROR)):
        path = os.path.join(where, name)
        if path in known:
            continue
        try:
            os.makedirs(where, exist_ok=True)
            handler = RotatingFileHandler(
                path, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8", delay=False
            )
        except OSError as exc:
            raise ConfigError(
                f"SETUP_FILE_LOGGING: {path} cannot be written ({exc.strerror}): give a folder "
                f"that this user may write."
            ) from exc
        handler.setLevel(level)
        handler.setFormatter(logging.Formatter(FORMAT))
        root.addHandler(handler)
    if root.level > logging.INFO or root.level == logging.NOTSET:
        root.setLevel(logging.INFO)


def report_to_sentry(environ: Any = os.environ) -> None:
    """Start sentry-sdk with its Celery integration.

    It reads ``SENTRY_DSN``, ``SENTRY_NAME``, ``SENTRY_ENVIRONMENT`` and ``SENTRY_RELEASE``.

    Raises:
        ConfigError: sentry-sdk is not installed, or there is no DSN.
    """
    try:
        import sentry_sdk  # an optional package
        from sentry_sdk.integrations.celery import CeleryIntegration
    except ImportError as exc:
        raise ConfigError(
            "SETUP_SENTRY_LOGGING: install it with pip install cadasta-workertoolbox[sentry]."
        ) from exc
    dsn = environ.get("SENTRY_DSN")
    if not dsn:
        raise ConfigError("SETUP_SENTRY_LOGGING: set the environment variable SENTRY_DSN.")
    sentry_sdk.init(
        dsn=dsn,
        integrations=[CeleryIntegration()],
        server_name=environ.get("SENTRY_NAME"),
        environment=environ.get("SENTRY_ENVIRONMENT"),
        release=environ.get("SENTRY_RELEASE"),
    )
