"""An SMS gateway on queues: providers post texts, workers answer them, nothing is answered twice.

The Celery app is :data:`sms_gateway.celery.app`, so that ``celery -A sms_gateway worker`` finds it.
"""

from __future__ import annotations
