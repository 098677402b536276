"""Queues that release at most one job an interval for each queue id: over HTTP, and for Celery."""

from __future__ import annotations
