"""The result backend on PostgreSQL: the common tests, prepared statements, schemas, lost rows."""

from __future__ import annotations

import pytest
from celery import Celery, states
from sqlalchemy import create_engine, text

from cadasta.workertoolbox.results.backend import ToolboxBackend
from tests.result_contract import ResultContract, request


class TestResults(ResultContract):
    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url

    def test_a_pooler_that_forgets_prepared_statements(self, backend: ToolboxBackend) -> None:
        """As PgBouncer does, which gives each transaction another connection."""
        backend.store_result("a", 1, states.STARTED, request=request())
        with backend.store.engine.connect() as connection:
            found = connection.execute(text("SELECT name FROM pg_prepared_statements")).all()
            assert [row.name[:14] for row in found] == ["workertoolbox_"]
            connection.execute(text("DEALLOCATE ALL"))
        backend.store_result("a", 2, "PROGRESS", request=request())
        backend.store_result("a", 3, states.SUCCESS, request=request())
        assert backend.get_result("a") == 3
        with backend.store.engine.connect() as connection:
            assert connection.execute(text("SELECT name FROM pg_prepared_statements")).all() == []

    @pytest.mark.parametrize("is_asked", [True, False])
    def test_connections_that_the_server_closed(
        self, app: Celery, is_asked: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One that was used a moment ago is not asked: the write is tried again."""
        if is_asked:  # else after five seconds
            app.conf.database_engine_options = {"pool_pre_ping": True}
        backend = app.backend
        for number in range(3):
            backend.store_result(f"{number}", 1, states.SUCCESS, request=request())
            other = create_engine(backend.url)
            with other.begin() as connection:
                ended = text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                assert connection.execute(ended).all()
            other.dispose()
        backend.store_result("last", 1, states.SUCCESS, request=request())
        assert backend.get_state("last") == states.SUCCESS
        assert ("Failed operation" in caplog.text) is not is_asked

    def test_a_schema_of_ones_own(self, postgres_url: str) -> None:
        with create_engine(postgres_url).begin() as connection:
            connection.execute(text("CREATE SCHEMA mine"))
        app = Celery("schema", backend=f"toolbox+{postgres_url}", set_as_current=False)
        app.conf.database_table_schemas = {"task": "mine", "group": "mine"}
        app.backend.store_result("a", 1, states.STARTED, request=request(retries=1))
        app.backend.store_result("a", 1, states.SUCCESS, request=request(retries=1))
        assert app.backend.get_result("a") == 1
        with app.backend.store.engine.connect() as connection:
            for name in ("celery_taskmeta", "celery_task_attempt"):
                assert connection.scalar(text(f"SELECT count(*) FROM mine.{name}")) == 1
        app.backend.store.engine.dispose()

    def test_tables_that_are_dropped_meanwhile(self, backend: ToolboxBackend) -> None:
        backend.store_result("a", 1, states.SUCCESS, request=request())
        with backend.store.engine.connect() as connection:
            for name in ("celery_taskmeta", "workertoolbox_version"):
                connection.execute(text(f"DROP TABLE {name}"))
        backend.store_result("b", 1, states.SUCCESS, request=request())
        assert backend.get_state("b") == states.SUCCESS
