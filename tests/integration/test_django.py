"""The app in a Django project: migrate, models, admin and checks, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import make_url

from cadasta.workertoolbox import ConfigError
from cadasta.workertoolbox.django import database_from_url
from cadasta.workertoolbox.sql.engines import make_engine
from tests.services import SERVICES, create_database, drop_database

SHOP = Path(__file__).parents[1] / "acceptance" / "layouts" / "django_shop"
OURS = {"celery_task", "celery_taskmeta", "celery_task_attempt", "workertoolbox_version"}


def run(*command: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=SHOP,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tables(url: str) -> set[str]:
    engine = make_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_migrate_makes_the_tables_and_the_project_sees_them(postgres_url: str) -> None:
    project = {"SHOP_DATABASE": postgres_url}
    run("manage.py", "migrate", "--plan", **project)
    assert tables(postgres_url) == set()
    assert "Made the ledger's tables: 0001_tables" in run("manage.py", "migrate", **project)
    assert tables(postgres_url) >= OURS
    assert "Made" not in run("manage.py", "migrate", **project)
    assert "No changes detected" in run("manage.py", "makemigrations", "--check", **project)
    assert "no issues" in run("manage.py", "check", "--database", "default", **project)
    assert "all seen" in run("look.py", **project)
    assert "celery_task" not in run("manage.py", "dumpdata", **project)
    run("manage.py", "flush", "--no-input", **project)


def test_a_ledger_in_a_database_of_its_own(postgres_url: str) -> None:
    admin = SERVICES["postgres"].url
    ledger = create_database(admin)
    try:
        project = {"SHOP_DATABASE": postgres_url, "SHOP_LEDGER": ledger}
        run("manage.py", "migrate", **project)
        assert not tables(postgres_url) & OURS
        run("manage.py", "migrate", "--database", "workertoolbox", **project)
        assert tables(ledger) - {"django_migrations"} >= OURS
        assert "auth_user" not in tables(ledger)
        assert "all seen" in run("look.py", **project)
        del project["SHOP_LEDGER"]
    finally:
        drop_database(admin, ledger)


def test_a_url_becomes_an_entry_of_databases() -> None:
    url = "toolbox+postgresql+psycopg2://me:p%40ss@db:5433/shop?sslmode=require"
    assert database_from_url(url) == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "shop",
        "USER": "me",
        "PASSWORD": "p@ss",
        "HOST": "db",
        "PORT": "5433",
        "OPTIONS": {"sslmode": "require"},
    }
    assert make_url(url.removeprefix("toolbox+")).password == "p@ss"
    for wrong in ("no url", "oracle://me:secret@db/x"):
        with pytest.raises(ConfigError) as caught:
            database_from_url(wrong)
        assert "secret" not in str(caught.value)
