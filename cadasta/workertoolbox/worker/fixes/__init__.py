"""Workarounds of Celery, each in a file of its own."""
