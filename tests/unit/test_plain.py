"""The tools that know neither Celery nor SQL."""

from __future__ import annotations

import os

import pytest

from cadasta.workertoolbox.plain.backoff import Backoff
from cadasta.workertoolbox.plain.forks import around_forks


def test_waits_grow_and_are_at_least_half_as_long() -> None:
    retry = Backoff(1.0, 10.0)
    for longest in (1, 2, 4, 8, 10, 10):
        assert longest / 2 <= retry.next() <= longest


def test_waits_differ_from_process_to_process() -> None:
    assert len({Backoff(1.0, 10.0).next() for _ in range(50)}) > 40


def test_the_first_success_resets_the_waits() -> None:
    retry = Backoff(1.0, 10.0, factor=4)
    failed = [retry.has_failed]
    retry.next()
    failed.append(retry.has_failed)
    assert 2 <= retry.next() <= 4
    retry.reset()
    failed.append(retry.has_failed)
    assert failed == [False, True, False]
    assert retry.next() <= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_what_is_told_twice_happens_once_around_each_fork() -> None:
    told: list[str] = []

    def before() -> None:
        told.append("before")

    def in_parent() -> None:
        told.append("parent")

    def in_child() -> None:
        told.append("child")

    for _ in range(2):
        around_forks(before=before, after_in_parent=in_parent, after_in_child=in_child)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, " ".join(told).encode())
        os._exit(0)
    os.close(write)
    with open(read) as pipe:
        assert pipe.read() == "before child"
    os.waitpid(pid, 0)
    assert told == ["before", "parent"]


def test_first_told_is_last_before_a_fork_and_first_after_it() -> None:
    told: list[str] = []
    around_forks(before=lambda: told.append("one"), after_in_parent=lambda: told.append("one"))
    around_forks(before=lambda: told.append("two"), after_in_parent=lambda: told.append("two"))
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    assert told == ["two", "one", "one", "two"]
