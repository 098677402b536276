"""gunicorn -c deploy/gunicorn.conf.py sms_gateway.wsgi:application"""

from __future__ import annotations

import os

bind = f"{os.environ.get('SMS_HOST') or '127.0.0.1'}:{os.environ.get('SMS_PORT') or 8000}"
# A request waits for the broker's confirmation, so that threads are what a process needs.
worker_class = "gthread"
workers = int(os.environ.get("SMS_API_PROCESSES") or 2)
threads = 16
keepalive = 60
graceful_timeout = 15
control_socket_disable = True
