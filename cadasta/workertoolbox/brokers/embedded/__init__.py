"""The embedded broker: a kombu transport on one SQLite file."""
