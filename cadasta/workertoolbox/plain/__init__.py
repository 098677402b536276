"""What needs neither Celery nor SQL: URLs, JSON text."""
