"""What the result backend does on every database: the same tests on SQLite, PostgreSQL, MariaDB."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pydantic
import pytest
from billiard.exceptions import TimeLimitExceeded
from celery import Celery, states
from celery.exceptions import NotRegistered
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult, GroupResult
from celery.utils.objects import Bunch
from kombu.exceptions import EncodeError
from sqlalchemy import func, insert, select, text, update

from cadasta.workertoolbox import Ledger, LedgerError
from cadasta.workertoolbox.messages.decoding import TaskRecord
from cadasta.workertoolbox.results.backend import ToolboxBackend
from cadasta.workertoolbox.sql.engines import make_engine
from cadasta.workertoolbox.sql.tables import MAX_ATTEMPTS, attempt, taskmeta
from tests.outcome_contract import OutcomeContract


class Stubborn(Exception):
    """Cannot be rebuilt of its message alone."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Payment(pydantic.BaseModel):
    card: int
    much: list[int]


def request(**fields: Any) -> Any:
    """What Celery passes of a running task."""
    known = {
        "task": "export.pdf",
        "args": [1, "two"],
        "kwargs": {"three": 3},
        "hostname": "celery@here",
        "retries": 0,
        "delivery_info": {"routing_key": "export"},
        "children": [],
        "stamps": None,
        "stamped_headers": None,
        "group": None,
    }
    return SimpleNamespace(**{**known, **fields})


class ResultContract(OutcomeContract):
    """The tests; a subclass has the fixture ``url``, of an empty database."""

    @pytest.fixture
    def app(self, url: str) -> Iterator[Celery]:
        app = Celery("results", backend=f"toolbox+{url}", set_as_current=False)
        app.conf.update(result_extended=True, result_expires=None)
        yield app
        app.backend.store.engine.dispose()

    @pytest.fixture
    def backend(self, app: Celery) -> ToolboxBackend:
        found: ToolboxBackend = app.backend
        assert isinstance(found, ToolboxBackend)
        return found

    def test_a_task_from_start_to_end(self, backend: ToolboxBackend, app: Celery) -> None:
        before = datetime.now(timezone.utc)
        assert backend.get_state("a") == states.PENDING
        assert AsyncResult("a", app=app).result is None
        backend.store_result("a", {"pid": 1}, states.STARTED, request=request())
        assert backend.get_task_meta("a")["result"] == {"pid": 1}
        backend.store_result("a", {"half": 0.5}, "PROGRESS", request=request())
        assert backend.get_state("a") == "PROGRESS"
        child = AsyncResult("b", app=app)
        backend.store_result("a", [1, "ü"], states.SUCCESS, request=request(children=[child]))
        found = AsyncResult("a", app=app)
        assert (found.state, found.get(timeout=1)) == ("SUCCESS", [1, "ü"])
        assert (found.name, found.args, found.kwargs) == ("export.pdf", [1, "two"], {"three": 3})
        assert (found.worker, found.retries, found.queue) == ("celery@here", 0, "export")
        assert found.children == [child]
        meta = backend.get_task_meta("a")
        assert before <= meta["date_started"] <= datetime.now(timezone.utc)
        assert found.date_done.utcoffset() == timedelta(0)
        assert abs((found.date_done - before).total_seconds()) < 10
        assert 0 < meta["runtime"] < 10

    @pytest.mark.parametrize(
        ("stored", "then", "stays"),
        [
            (states.SUCCESS, states.STARTED, True),
            (states.SUCCESS, states.FAILURE, True),
            (states.SUCCESS, states.SUCCESS, True),
            (states.FAILURE, states.STARTED, True),
            (states.FAILURE, states.RETRY, True),
            (states.REVOKED, states.STARTED, True),
            (states.FAILURE, states.SUCCESS, False),
            (states.REVOKED, states.FAILURE, False),
            (states.RETRY, states.STARTED, False),
            (states.STARTED, states.STARTED, False),
        ],
    )
    def test_what_may_overwrite_what(
        self, backend: ToolboxBackend, stored: str, then: str, stays: bool
    ) -> None:
        values = {
            state: ValueError(state) if state in states.EXCEPTION_STATES else state
            for state in states.ALL_STATES
        }
        backend.store_result("a", values[stored], stored, request=request())
        backend.store_result("a", values[then], then, request=request())
        state = stored if stays else then
        meta = backend.get_task_meta("a")
        assert meta["status"] == state
        assert str(meta["result"]) == state

    def test_an_earlier_attempt_that_comes_late(self, backend: ToolboxBackend) -> None:
        backend.store_result("a", "new", states.STARTED, request=request(retries=2))
        backend.store_result("a", "old", states.STARTED, request=request(retries=1))
        assert backend.get_result("a") == "new"
        backend.store_result("a", "by hand", "PROGRESS")
        meta = backend.get_task_meta("a")
        assert (meta["result"], meta["name"], meta["retries"]) == ("by hand", "export.pdf", 2)

    def test_exceptions(self, backend: ToolboxBackend, app: Celery) -> None:
        backend.store_result("a", KeyError("k\0"), states.FAILURE, traceback="line\0 1")
        with pytest.raises(KeyError, match="k"):
            AsyncResult("a", app=app).get(timeout=1)
        assert backend.get_traceback("a") == "line\ufffd 1"
        backend.store_result("b", Stubborn(1, 2), states.FAILURE)
        assert "1 and 2" in str(backend.get_result("b"))
        backend.store_result("c", type("Mine", (Exception,), {})("m"), states.FAILURE)
        assert type(backend.get_result("c")).__name__ == "Mine"
        backend.store_result("d", None, states.RETRY, request=request())
        assert (backend.get_state("d"), backend.get_result("d")) == ("RETRY", None)

    def test_an_unregistered_task(self, backend: ToolboxBackend, app: Celery) -> None:
        """What the worker's main process knows of it; an error here would end the worker."""
        bunch = Bunch(
            name="gone", chord=None, root_id="t", correlation_id="t", reply_to=None, errbacks=None
        )
        backend.mark_as_failure("t", NotRegistered("gone"), request=bunch)
        found = app.AsyncResult("t")
        assert found.state == states.FAILURE
        assert isinstance(found.result, NotRegistered)

    def test_what_cannot_be_stored(self, backend: ToolboxBackend) -> None:
        with pytest.raises(EncodeError):
            backend.store_result("a", object(), states.SUCCESS, request=request())
        assert backend.get_state("a") == states.PENDING
        backend.store_result("a", "x" * 5_000_000, states.SUCCESS, request=request())
        assert len(backend.get_result("a")) == 5_000_000

    def test_stamps(self, backend: ToolboxBackend) -> None:
        stamped = request(stamps={"tenant": ["x"], "other": 1}, stamped_headers=["tenant"])
        backend.store_result("a", 1, states.SUCCESS, request=stamped)
        meta = backend.get_task_meta("a")
        assert (meta["stamped_headers"], meta["tenant"]) == (["tenant"], ["x"])
        assert "other" not in meta

    @pytest.mark.parametrize(
        "name",
        ["result", "status", "task_id", "traceback", "children", "date_done", "name", "args"]
        + ["kwargs", "worker", "retries", "queue", "stamped_headers", "date_started", "runtime"],
    )
    def test_a_stamp_named_as_a_field(
        self, backend: ToolboxBackend, app: Celery, name: str
    ) -> None:
        backend.store_result("plain", 6, states.SUCCESS, request=request())
        stamped = request(stamps={name: "vip", "mine": [1]}, stamped_headers=[name, "mine"])
        backend.store_result("a", 6, states.SUCCESS, request=stamped)
        plain, meta = backend.get_task_meta("plain"), backend.get_task_meta("a")
        assert AsyncResult("a", app=app).get(timeout=5) == 6
        assert (meta["mine"], meta["stamped_headers"]) == ([1], [name, "mine"])
        moving = {"task_id", "date_done", "stamped_headers"}
        assert {key: meta[key] for key in plain.keys() - moving} == {
            key: plain[key] for key in plain.keys() - moving
        }
        assert meta["task_id"] == "a" and isinstance(meta["date_done"], datetime)

    def test_stamps_that_are_no_json(self, backend: ToolboxBackend) -> None:
        stamped = request(stamps={"tenant": object()}, stamped_headers=["tenant"])
        backend.store_result("a", 1, states.SUCCESS, request=stamped)
        assert backend.get_result("a") == 1

    @pytest.mark.parametrize("length", [155, 156, 300, 20_000])
    def test_what_is_longer_than_its_column(
        self, backend: ToolboxBackend, app: Celery, url: str, length: int
    ) -> None:
        def cut(text: str, most: int = 155) -> str:
            return text if len(text) <= most else text[: most - 3] + "..."

        long, other = "x" * length, "x" * (length - 1) + "y"
        asked = request(
            task="name" + long, hostname="worker" + long, delivery_info={"routing_key": "q" + long}
        )
        for task_id, value in ((long, 1), (other, 2)):
            backend.store_result(task_id, {}, states.STARTED, request=asked)
            backend.store_result(task_id, ValueError(), states.RETRY, request=asked)
            backend.store_result(task_id, value, states.SUCCESS, request=asked)
        backend.store_result("z", {}, "S" * length, request=asked)
        found = AsyncResult(long, app=app)
        assert (found.get(timeout=5), AsyncResult(other, app=app).get(timeout=5)) == (1, 2)
        assert (found.name, found.worker) == (cut("name" + long), cut("worker" + long))
        assert (found.queue, found.id) == (cut("q" + long), long)
        assert backend.get_task_meta(long)["task_id"] == long
        assert backend.get_state("z") == cut("S" * length, 50)
        assert {one[0] for one in backend.get_many([other, long])} == {other, long}
        group = GroupResult(long, [found], app=app)
        group.save()
        assert GroupResult.restore(other, app=app) is None
        assert GroupResult.restore(long, app=app) == group
        with Ledger(url) as ledger:
            assert [one.worker for one in ledger.attempts(long)] == [cut("worker" + long)]
        group.delete()
        backend.forget(long)
        assert backend.get_state(long) == states.PENDING
        assert backend.get_state(other) == states.SUCCESS

    @pytest.mark.parametrize("odd", ["a\0b", "a\ud800b", "задача", "💥"], ids=ascii)
    def test_odd_text_everywhere(self, backend: ToolboxBackend, app: Celery, odd: str) -> None:
        asked = request(
            task=odd,
            hostname=odd,
            delivery_info={"routing_key": odd},
            args=[odd],
            kwargs={odd: odd},
        )
        backend.store_result(odd, {}, states.STARTED, request=asked)
        backend.store_result(odd, ValueError(odd), states.RETRY, traceback=odd, request=asked)
        backend.store_result(odd, ValueError(odd), states.FAILURE, traceback=odd, request=asked)
        found = AsyncResult(odd, app=app)
        assert (found.state, repr(found.result)) == (states.FAILURE, repr(ValueError(odd)))
        assert found.args == [odd]
        backend.store_result(odd + "2", odd, states.SUCCESS, request=asked)
        assert backend.get_result(odd + "2") == odd

    def test_the_plain_name_of_a_delayed_tasks_queue(self, backend: ToolboxBackend) -> None:
        key = ".".join("0" * 26) + ".1.0." + "q" * 100
        asked = request(delivery_info={"routing_key": key})
        backend.store_result("a", {}, states.STARTED, request=asked)
        assert backend.get_task_meta("a")["queue"] == "q" * 100

    def test_runs_that_are_delivered_again_after_their_time_limit(
        self, backend: ToolboxBackend, app: Celery, url: str
    ) -> None:
        @app.task(name="slow", shared=False, acks_late=True, acks_on_failure_or_timeout=False)
        def slow() -> None: ...

        asked = request(task="slow", chord=None, chain=[slow.s()], errbacks=[slow.s()])
        for _ in range(4):
            backend.store_result("a", {}, states.STARTED, request=asked)
            backend.mark_as_failure("a", TimeLimitExceeded(2.0), request=asked)
            assert backend.get_state("a") == states.RETRY
        backend.store_result("a", {}, states.STARTED, request=asked)
        assert backend.get_state("a") == states.STARTED
        backend.store_result("a", 5, states.SUCCESS, request=asked)
        with Ledger(url) as ledger:
            ledger.record([TaskRecord(task_id="a", name="slow")])
            found, task = ledger.attempts("a"), ledger.get("a")
        assert [one.state for one in found] == ["RETRY"] * 4 + ["SUCCESS"]
        assert [one.runtime for one in found[:4]] == [2.0] * 4
        assert all("TimeLimitExceeded" in str(one.error) for one in found[:4])
        assert task is not None and task.ran is not None and task.ran < 2
        early = request(task="other", chord=None, chain=None, errbacks=None)
        backend.mark_as_failure("b", TimeLimitExceeded(2.0), request=early)
        assert backend.get_state("b") == states.FAILURE

    @pytest.mark.parametrize("rule", [{"MONITOR_REDACT": ["card"]}, {"MONITOR_STORE_ARGS": False}])
    def test_inputs_that_pydantic_shows(self, url: str, rule: dict[str, Any]) -> None:
        def stored(**settings: Any) -> str:
            app = Celery("pydantic", backend=f"toolbox+{url}", set_as_current=False)
            app.conf.update(result_extended=True, task_store_eager_result=True, **settings)

            task_id = uuid4().hex

            @app.task(name=f"pay {task_id}", pydantic=True, shared=False)
            def pay(payment: Payment) -> None: ...

            wrong = {"card": "4111 1111], input_type=int]\n 1111", "much": ["5", "4222x"]}
            pay.apply(kwargs={"payment": wrong}, task_id=task_id)
            with app.backend.store.engine.connect() as connection:
                row = connection.execute(
                    select(taskmeta).where(taskmeta.c.task_id == task_id)
                ).one()
            app.backend.store.engine.dispose()
            assert row.status == states.FAILURE
            return f"{row.result} {row.traceback}"

        hidden = stored(**rule)
        assert "4111" not in hidden and "4222x" not in hidden
        assert "valid integer" in hidden and "input_type=str" in hidden
        assert "4222x" in stored()

    def test_groups(self, backend: ToolboxBackend, app: Celery) -> None:
        group = GroupResult("g", [AsyncResult(name, app=app) for name in "abc"], app=app)
        assert backend.restore_group("g") is None
        group.save()
        group.save()
        restored = GroupResult.restore("g", app=app)
        assert restored == group
        for name in "cab":
            backend.store_result(name, name, states.SUCCESS)
        assert restored.ready()
        assert restored.get(timeout=2) == ["a", "b", "c"]
        restored.delete()
        assert GroupResult.restore("g", app=app) is None

    def test_many_at_once(self, backend: ToolboxBackend) -> None:
        names = [f"task {number}" for number in range(1200)]
        for name in names[:3]:
            backend.store_result(name, name, states.SUCCESS)
        backend.store_result(names[3], ValueError("no"), states.FAILURE)
        found = dict(backend.get_many(names, max_iterations=1))
        assert set(found) == set(names[:4])
        with pytest.raises(CeleryTimeoutError):
            list(backend.get_many(names, timeout=0.01, interval=0.01))
        assert dict(backend.get_many([])) == {}

    def test_forget_and_cleanup(self, backend: ToolboxBackend, app: Celery) -> None:
        for name in ("forgotten", "old", "new", "going on"):
            backend.store_result(name, ValueError(), states.RETRY, request=request())
            if name != "going on":
                backend.store_result(name, 1, states.SUCCESS, request=request(retries=1))
        backend.forget("forgotten")
        assert backend.get_state("forgotten") == states.PENDING
        past = datetime.now(timezone.utc) - timedelta(days=2)
        with backend.store.engine.begin() as connection:
            old = update(taskmeta).where(taskmeta.c.task_id == "old")
            connection.execute(old.values(date_done=past.replace(tzinfo=None)))
            connection.execute(
                update(attempt).where(attempt.c.task_id == "old").values(ended_at=past)
            )
        backend.cleanup()
        assert app.backend.get_task_meta("old", cache=False)["status"] == states.SUCCESS
        backend.expires = timedelta(days=1)
        backend.cleanup()
        found = [backend.get_task_meta(one, cache=False)["status"] for one in ("old", "new")]
        assert found == [states.PENDING, states.SUCCESS]
        assert backend.get_state("going on") == states.RETRY
        with backend.store.engine.connect() as connection:
            kept = connection.execute(select(attempt.c.task_id).distinct()).scalars()
            assert set(kept) == {"new", "going on"}

    def test_attempts(self, backend: ToolboxBackend, url: str) -> None:
        for retries in range(3):
            backend.store_result("a", {}, states.STARTED, request=request(retries=retries))
            error = ConnectionError(f"number {retries}")
            backend.store_result("a", error, states.RETRY, request=request(retries=retries))
        backend.store_result("a", {}, states.STARTED, request=request(retries=3))
        backend.store_result("a", 1, states.SUCCESS, request=request(retries=3))
        with Ledger(url) as ledger:
            found = ledger.attempts("a")
        assert [(one.retries, one.state) for one in found] == [
            *((number, "RETRY") for number in range(3)),
            (3, "SUCCESS"),
        ]
        assert [one.error for one in found[2:]] == ["ConnectionError: number 2", None]
        for one in found:
            assert one.worker == "celery@here"
            assert one.started_at is not None and one.ended_at is not None
            assert one.started_at <= one.ended_at
            assert one.runtime is not None and one.runtime < 10

    def test_attempts_are_bounded(self, backend: ToolboxBackend) -> None:
        for retries in (0, MAX_ATTEMPTS - 1, MAX_ATTEMPTS, MAX_ATTEMPTS + 1, 20_000):
            error = ValueError("x" * 5000)
            backend.store_result("a", error, states.RETRY, request=request(retries=retries))
        with backend.store.engine.connect() as connection:
            rows = connection.execute(select(attempt).order_by(attempt.c.place)).all()
        assert [(row.place, row.retries) for row in rows] == [
            (0, 0),
            (MAX_ATTEMPTS - 1, MAX_ATTEMPTS - 1),
            (MAX_ATTEMPTS, 20_000),
        ]
        assert all(len(row.error) == 2000 for row in rows)

    def test_celerys_own_backend_reads_it_and_is_read(
        self, backend: ToolboxBackend, url: str
    ) -> None:
        other = Celery("other", backend=f"db+{url}", set_as_current=False)
        other.conf.result_extended = True
        backend.store_result("ours", [1], states.SUCCESS, request=request())
        assert AsyncResult("ours", app=other).args == [1, "two"]
        assert AsyncResult("ours", app=other).get(timeout=1) == [1]
        other.backend.store_result("theirs", [2], states.SUCCESS, request=request())
        assert backend.get_task_meta("theirs")["kwargs"] == {"three": 3}
        assert backend.get_result("theirs") == [2]

    def test_pickles_of_an_older_celery(self, backend: ToolboxBackend) -> None:
        values = {
            "plain": {"a": [1, 2.5, None]},
            "error": ValueError("no"),
            "code": timedelta(seconds=1),
        }
        backend.store.tables  # noqa: B018 - makes them
        with backend.store.engine.begin() as connection:
            for number, (name, value) in enumerate(values.items()):
                state = "FAILURE" if name == "error" else "SUCCESS"
                row = {"id": number, "task_id": name, "status": state}
                connection.execute(insert(taskmeta).values(result=pickle.dumps(value), **row))
        assert backend.get_result("plain") == values["plain"]
        assert repr(backend.get_result("error")) == repr(values["error"])
        assert backend.get_state("code") == states.SUCCESS
        assert isinstance(backend.get_result("code"), LedgerError)

    def test_a_table_that_celery_made(self, backend: ToolboxBackend, url: str) -> None:
        engine = make_engine(url)
        short = "task_id varchar(155) unique, status varchar(50), result {}, date_done timestamp,"
        kind = {"postgresql": "bytea"}.get(engine.dialect.name, "blob")
        number = "serial" if engine.dialect.name == "postgresql" else "integer"
        if engine.dialect.name == "mysql":
            number = "integer auto_increment"
        with engine.begin() as connection:
            if engine.dialect.name != "sqlite":
                connection.execute(text("CREATE SEQUENCE task_id_sequence"))
            connection.execute(
                text(
                    f"CREATE TABLE celery_taskmeta (id {number} primary key, "
                    f"{short.format(kind)} traceback text)"
                )
            )
            connection.execute(
                text(
                    "CREATE TABLE celery_tasksetmeta (id integer primary key, taskset_id "
                    f"varchar(155) unique, result {kind}, date_done timestamp)"
                )
            )
        engine.dispose()
        backend.store_result("a", 1, states.STARTED, request=request())
        backend.store_result("a", 1, states.SUCCESS, request=request())
        assert backend.get_result("a") == 1
        assert backend.get_task_meta("a").get("args") is None

    @pytest.mark.parametrize("is_first", [True, False])
    def test_names_of_ones_own(self, url: str, is_first: bool) -> None:
        # The ledger makes tables of Celery's names in the same database.
        with Ledger(url) as ledger:
            if not is_first:
                ledger.upgrade()
            self._store_in_tables_of_other_names(url)
            ledger.upgrade()
            assert ledger.get("a") is None

    def _store_in_tables_of_other_names(self, url: str) -> None:
        app = Celery("named", backend=f"toolbox+{url}", set_as_current=False)
        app.conf.update(
            result_extended=True, database_table_names={"task": "my_tasks", "group": "my_groups"}
        )
        app.backend.store_result("a", 1, states.SUCCESS, request=request())
        GroupResult("g", [AsyncResult("a", app=app)], app=app).save()
        assert GroupResult.restore("g", app=app).get(timeout=1) == [1]
        with app.backend.store.engine.connect() as connection:
            for name in ("my_tasks", "my_groups"):
                assert connection.scalar(text(f"SELECT count(*) FROM {name}")) == 1
        app.backend.store.engine.dispose()

    def test_threads_that_start_at_once(self, url: str) -> None:
        app = Celery("threads", backend=f"toolbox+{url}", set_as_current=False)
        barrier = threading.Barrier(8)
        backends = set()  # Celery makes several where threads ask for the first one at once.

        def store(number: int) -> None:
            barrier.wait()
            backend = app.backend
            backends.add(backend)
            for turn in range(5):
                backend.store_result(f"{number}-{turn}", 1, states.STARTED)
                backend.store_result(f"{number}-{turn}", 1, states.SUCCESS)

        threads = [threading.Thread(target=store, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with app.backend.store.engine.connect() as connection:
            done = select(func.count()).where(taskmeta.c.status == "SUCCESS")
            assert connection.scalar(done) == 40
        for backend in {*backends, app.backend}:
            backend.store.engine.dispose()

    def test_redaction(self, url: str) -> None:
        app = Celery("secrets", backend=f"toolbox+{url}", set_as_current=False)
        app.conf.update(result_extended=True, MONITOR_REDACT=["three"])
        app.backend.store_result("a", 1, states.SUCCESS, request=request())
        assert app.backend.get_task_meta("a")["kwargs"] == {"three": "***"}
        app.backend.store.engine.dispose()
        broken = Celery("broken", backend=f"toolbox+{url}", set_as_current=False)
        broken.conf.update(result_extended=True, MONITOR_REDACT=lambda *call: 1 / 0)
        broken.backend.store_result("c", 1, states.SUCCESS, request=request())
        meta = broken.backend.get_task_meta("c")
        assert (meta["status"], meta["args"], meta["kwargs"]) == ("SUCCESS", None, None)
        broken.backend.store.engine.dispose()
        silent = Celery("silent", backend=f"toolbox+{url}", set_as_current=False)
        silent.conf.update(result_extended=True, MONITOR_STORE_ARGS=False)
        silent.backend.store_result("b", 1, states.SUCCESS, request=request())
        meta = silent.backend.get_task_meta("b")
        assert (meta["args"], meta["kwargs"], meta["worker"]) == (None, None, "celery@here")
        silent.backend.store.engine.dispose()
