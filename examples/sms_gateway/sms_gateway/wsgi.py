"""For gunicorn: ``gunicorn sms_gateway.wsgi:application``."""

from __future__ import annotations

from .api import make_app

application = make_app()
