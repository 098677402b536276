"""What is stored of tasks that ignore their result or give up, on every database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery, states
from celery.app.task import Context
from celery.app.trace import trace_task
from celery.exceptions import Ignore, Reject
from sqlalchemy import event, select, text

from cadasta.workertoolbox.results.backend import ToolboxBackend
from cadasta.workertoolbox.sql.tables import attempt, taskmeta


def run(task: Any, task_id: str = "t", **fields: Any) -> Any:
    """Run a task as a worker's pool does, with Celery's own tracer; return what that returns."""
    request = {"id": task_id, "task": task.name, "hostname": "celery@here", "is_eager": False}
    request.update({"delivery_info": {}, **fields})
    return trace_task(task, task_id, (), {}, request, app=task.app)


def make(app: Celery, function: Any, name: str = "export.quiet", **options: Any) -> Any:
    """Return a task of this app alone."""
    return app.task(function, name=name, shared=False, **options)


def succeed() -> dict[str, int]:
    return {"secret": 7}


def give_up() -> None:
    raise Ignore


class OutcomeContract:
    """The tests; a subclass has the fixtures ``app`` and ``backend`` of a toolbox backend."""

    @pytest.fixture
    def writes(self, backend: ToolboxBackend) -> Iterator[Callable[[], int]]:
        """How many statements have changed the database since the last call."""
        engine, seen = backend.store.engine, [0]
        backend.store.tables  # noqa: B018 - makes them

        def count(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            seen[0] += statement.lstrip().upper().startswith(("INSERT", "UPDATE"))

        def since() -> int:
            found, seen[0] = seen[0], 0
            return found

        event.listen(engine, "before_cursor_execute", count)
        yield since
        event.remove(engine, "before_cursor_execute", count)

    @pytest.fixture
    def row(self, backend: ToolboxBackend) -> Callable[..., Any]:
        """Read a result as it is stored."""

        backend.store.tables  # noqa: B018 - makes them

        def read(task_id: str = "t") -> Any:
            with backend.store.engine.connect() as connection:
                chosen = select(taskmeta).where(taskmeta.c.task_id == task_id)
                return connection.execute(chosen).one_or_none()

        return read

    @pytest.mark.parametrize("says", ["task", "call", "setting"])
    def test_a_success_is_recorded_without_its_value(
        self, app: Celery, row: Callable[..., Any], says: str
    ) -> None:
        app.conf.task_ignore_result = says == "setting"
        own: dict[str, Any] = {"ignore_result": True} if says == "task" else {}
        task = make(app, succeed, **own)
        run(task, **({"ignore_result": True} if says == "call" else {"ignore_result": None}))
        found = row()
        assert (found.status, bytes(found.result), found.traceback) == ("SUCCESS", b"null", None)
        assert (found.name, found.worker, found.retries) == ("export.quiet", "celery@here", 0)
        # MariaDB keeps the whole seconds of Celery's own column alone.
        assert found.date_started <= found.date_done + timedelta(seconds=1)
        assert found.runtime < 10
        assert app.AsyncResult("t").get(timeout=1) is None

    def test_the_call_overrules_the_task(self, app: Celery, row: Callable[..., Any]) -> None:
        run(make(app, succeed, "quiet", ignore_result=True), ignore_result=False)
        assert bytes(row().result) == b'{"secret": 7}'

    def test_a_failure_is_recorded_with_its_error(
        self, app: Celery, row: Callable[..., Any]
    ) -> None:
        def fail() -> None:
            raise ValueError("no such file")

        run(make(app, fail, "quiet", ignore_result=True))
        assert app.backend.get_state("t") == states.FAILURE
        with pytest.raises(ValueError, match="no such file"):
            app.AsyncResult("t").get(timeout=1)
        assert "no such file" in row().traceback

    def test_a_revoked_one(self, app: Celery, backend: ToolboxBackend) -> None:
        backend.mark_as_revoked("t", "expired", request=Context(), store_result=False)
        assert backend.get_state("t") == states.REVOKED

    def test_it_costs_one_write(self, app: Celery, writes: Callable[[], int]) -> None:
        if app.backend.store.engine.dialect.driver == "psycopg2":
            pytest.skip("its prepared writes go past SQLAlchemy's events")
        app.conf.task_track_started = True
        run(make(app, succeed, "quiet", ignore_result=True))
        assert writes() == 1
        run(make(app, succeed, "told"), "told")
        assert writes() == 2

    def test_a_retried_one_costs_one_write_as_well(
        self, app: Celery, backend: ToolboxBackend, row: Callable[..., Any]
    ) -> None:
        run(make(app, succeed, "quiet", ignore_result=True), retries=3)
        assert (row().status, row().retries) == ("SUCCESS", 3)
        with backend.store.engine.connect() as connection:
            assert connection.execute(select(attempt)).all() == []

    def test_nothing_is_recorded_where_the_setting_is_off(
        self, url: str, row: Callable[..., Any]
    ) -> None:
        app = Celery("quiet", backend=f"toolbox+{url}", set_as_current=False)
        app.conf.update(result_extended=True, RECORD_IGNORED=False)
        run(make(app, succeed, "quiet", ignore_result=True))
        run(make(app, give_up, "gives up", ignore_result=True), "u")
        assert row() is None and row("u") is None
        run(make(app, give_up, "told"), "v")  # the setting is of ignored results
        assert row("v").status == states.IGNORED
        app.backend.store.engine.dispose()

    def test_nothing_is_recorded_of_what_nobody_scheduled(
        self, app: Celery, row: Callable[..., Any]
    ) -> None:
        task = make(app, succeed, "quiet", ignore_result=True)
        assert task.apply(task_id="t").get() == {"secret": 7}
        assert row() is None

    def test_who_gives_up_has_ended(self, app: Celery, row: Callable[..., Any]) -> None:
        app.conf.task_track_started = True
        run(make(app, give_up, "gives up"))
        assert (row().status, row().date_done is None, row().runtime < 10) == (
            states.IGNORED,
            False,
            True,
        )
        # A message of the same id that comes later is worked on all the same.
        run(make(app, succeed, "again"))
        assert row().status == states.SUCCESS

    @pytest.mark.parametrize("own", ["PAUSED", "FAILURE", "SUCCESS", "REVOKED", "IGNORED"])
    def test_what_it_stored_itself_stays(
        self, app: Celery, backend: ToolboxBackend, own: str
    ) -> None:
        error = own in states.EXCEPTION_STATES

        def give_up(self: Any) -> None:
            self.update_state(state=own, meta=ValueError("mine") if error else "mine")
            raise Ignore

        run(make(app, give_up, "gives up", bind=True))
        assert (backend.get_state("t"), str(backend.get_result("t"))) == (own, "mine")

    def test_a_later_attempt_is_not_given_up_by_an_earlier_one(
        self, app: Celery, backend: ToolboxBackend
    ) -> None:
        app.conf.task_track_started = True

        def give_up(self: Any) -> None:
            later = self.request.__dict__ | {"retries": 2}
            backend.store_result("t", {}, states.STARTED, request=type("Request", (), later))
            raise Ignore

        run(make(app, give_up, "gives up", bind=True), retries=1)
        assert backend.get_state("t") == states.STARTED

    def test_one_that_is_replaced_goes_on(self, app: Celery, backend: ToolboxBackend) -> None:
        app.conf.update(task_track_started=True, broker_url="memory://")
        other = make(app, succeed, "other")

        def replace(self: Any) -> Any:
            return self.replace(other.s())

        run(make(app, replace, "replaced", bind=True))
        assert backend.get_state("t") == states.STARTED

    def test_a_rejected_one_that_no_broker_keeps_has_failed(
        self, app: Celery, backend: ToolboxBackend
    ) -> None:
        app.conf.task_track_started = True

        def reject() -> None:
            raise Reject("not now", requeue=True)

        run(make(app, reject, "early"), "early")
        run(make(app, reject, "quiet", ignore_result=True), "quiet")
        run(make(app, reject, "late", acks_late=True), "late")
        found = [backend.get_state(name) for name in ("early", "quiet", "late")]
        assert found == [states.FAILURE, states.FAILURE, states.STARTED]

    def test_what_cannot_be_stored_does_not_fail_the_task(
        self, app: Celery, backend: ToolboxBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        backend.store.tables  # noqa: B018 - makes them
        backend.max_retries = 0
        with backend.store.engine.connect() as connection:
            connection.execute(text("ALTER TABLE celery_taskmeta RENAME COLUMN worker TO gone"))
        ended = run(make(app, succeed, ignore_result=True))
        assert (ended.info, ended.retval) == (None, {"secret": 7})
        assert "The outcome SUCCESS of task" in caplog.text
