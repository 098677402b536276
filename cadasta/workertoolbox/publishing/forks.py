"""A process that is forked from one that publishes: it has connections and locks of its own.

Servers that load an application and then fork (gunicorn with ``--preload``, uWSGI) do so by
``os.fork``, of which Celery and kombu know nothing: parent and children publish on one connection,
whose frames mix, and wait for each other's answers. A thread that was publishing at that moment
does not exist in the child, and what it had taken from a pool or locked stays so.
"""

from __future__ import annotations

import threading
from typing import Any

from celery import Celery, _state, signals
from celery.app.amqp import AMQP
from celery.utils.dispatch import Signal
from celery.utils.nodenames import gethostname
from kombu import Connection, pools
from kombu.transport.base import StdChannel, Transport
from kombu.utils.objects import cached_property

from ..plain.forks import around_forks
from ..routing.router import Router

#: What the child has given up; finalizers of what is the parent's must not run there.
_abandoned: list[Any] = []


def survive_forks() -> None:
    """Give each child its own pools of connections; done once.

    Only the pools of apps that the toolbox configures are touched. In the processes of Celery's
    own pool, which see to it by themselves, this comes before, and changes nothing else.
    """
    around_forks(after_in_child=_after_fork)


def _after_fork() -> None:
    apps = [app for app in list(_state._get_active_apps()) if _is_ours(app)]
    for app in apps:
        _leave_pools(app)
    if apps:
        _renew_locks(apps)


def _is_ours(app: Any) -> bool:
    return bool(app.configured) and isinstance(app.conf.task_routes, Router)


def _leave_pools(app: Any) -> None:
    amqp = app.__dict__.get("amqp")
    producers = getattr(amqp, "_producer_pool", None)
    old = [app._pool, producers, getattr(producers, "connections", None)]
    app._pool = None
    if amqp is not None:
        amqp._producer_pool = None
    for group in (pools.connections, pools.producers):
        for key, pool in list(group.items()):
            if any(pool is one for one in old):
                dict.pop(group, key)
    _abandoned.extend(old)


def _renew_locks(apps: list[Any]) -> None:
    """Replace the locks of a process that a publish takes: another thread may have held them.

    kombu's cached properties have one lock a class, and hold it while a Redis channel connects.
    """
    for app in apps:
        app._finalize_mutex = threading.RLock()
    for signal in vars(signals).values():
        if isinstance(signal, Signal):
            signal.lock = threading.Lock()
    for cls in _with_subclasses(Connection, Transport, StdChannel, Celery, AMQP):
        for value in vars(cls).values():
            if isinstance(value, cached_property):
                value.lock = threading.RLock()
    # The name of each message's origin comes from a cache behind a lock.
    memoized = dict(
        zip(gethostname.__code__.co_freevars, gethostname.__closure__ or (), strict=True)
    )
    if "mutex" in memoized:
        memoized["mutex"].cell_contents = threading.Lock()


def _with_subclasses(*classes: type) -> set[type]:
    found: set[type] = set()
    pending = list(classes)
    while pending:
        cls = pending.pop()
        if cls not in found:
            found.add(cls)
            pending += cls.__subclasses__()
    return found
