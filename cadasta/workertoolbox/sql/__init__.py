"""Databases by SQLAlchemy, without Celery: engines, tables, migrations, what errors mean."""
