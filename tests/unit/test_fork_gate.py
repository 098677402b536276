"""What a fork waits for, and who waits for a fork."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.pool import NullPool, QueuePool

from cadasta.workertoolbox.sql import fork_gate
from cadasta.workertoolbox.sql.engines import make_engine
from cadasta.workertoolbox.sql.fork_gate import ForkGate


def start(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_a_fork_waits_until_others_have_left() -> None:
    gate = ForkGate()
    is_inside, may_leave = threading.Event(), threading.Event()
    left: list[bool] = []

    def use() -> None:
        with gate.inside():
            is_inside.set()
            may_leave.wait(5)
            left.append(True)

    thread = start(use)
    is_inside.wait(5)
    timer = threading.Timer(0.1, may_leave.set)
    timer.start()
    gate.shut()
    assert left
    gate.open()
    thread.join()
    timer.join()


def test_others_wait_for_a_fork() -> None:
    gate = ForkGate()
    gate.shut()
    entered = threading.Event()

    def use() -> None:
        with gate.inside():
            entered.set()

    thread = start(use)
    assert not entered.wait(0.1)
    gate.open()
    assert entered.wait(5)
    thread.join()


def test_who_forks_may_be_inside_and_go_inside() -> None:
    gate = ForkGate()
    with gate.inside():
        gate.shut()
        with gate.inside():
            pass
        gate.open()


def test_who_is_inside_waits_for_no_fork() -> None:
    gate = ForkGate()
    is_inside, is_shut = threading.Event(), threading.Event()
    done: list[bool] = []

    def use() -> None:
        with gate.inside():
            is_inside.set()
            is_shut.wait(0.1)  # by then the other thread waits for this one
            with gate.inside():
                done.append(True)

    thread = start(use)
    is_inside.wait(5)
    gate.shut()
    is_shut.set()
    assert done
    gate.open()
    thread.join()


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_gate, "PATIENCE", 0.1)
    gate = ForkGate()
    thread = start(gate.enter)
    thread.join()
    gate.shut()
    gate.open()


def test_a_child_finds_it_open() -> None:
    gate = ForkGate()
    start(gate.enter).join()
    gate.start_over()
    gate.shut()
    gate.open()
    gate.leave(threading.get_ident())  # of a connection that was taken before the fork
    with gate.inside():
        pass


@pytest.mark.parametrize("pool_cls", [QueuePool, NullPool])
def test_connections_to_sqlite_are_used_inside(
    pool_cls: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = ForkGate()
    monkeypatch.setattr(fork_gate, "gate", gate)
    engine = make_engine(f"sqlite:///{tmp_path}/one.sqlite3", poolclass=pool_cls)
    for _ in range(2):
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
            assert gate.users == {threading.get_ident(): 1}
        assert not gate.users
    engine.dispose()


def test_a_connection_that_cannot_be_made_keeps_nobody_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = ForkGate()
    monkeypatch.setattr(fork_gate, "gate", gate)

    def refuse() -> sqlite3.Connection:
        raise sqlite3.OperationalError

    engine = make_engine(f"sqlite:///{tmp_path}/one.sqlite3", creator=refuse)
    with pytest.raises(Exception, match="OperationalError"):
        engine.connect()
    assert not gate.users
