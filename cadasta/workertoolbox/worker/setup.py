"""``setup_app``: what an app needs beyond its settings."""

from __future__ import annotations

import logging
from typing import Any

from celery import signals

from ..brokers.kinds import broker_of, require_same_broker
from ..plain import stopping
from ..plain.urls import database_url, mask_url
from ..publishing.probe import register_probe
from ..publishing.signals import delay_topology
from ..routing.router import router_of
from . import logs
from .fixes.control_queues import name_control_queues
from .fixes.replacements import keep_replacements
from .fixes.retries import keep_retries
from .fixes.short_delays import lengthen_short_delays
from .monitor_guard import guard_monitor_queue

logger = logging.getLogger(__name__)


def setup_app(app: Any, throw: bool = True) -> None:
    """Prepare ``app`` and its broker and database; done once, further calls change nothing.

    It declares the exchange and all queues, creates missing tables, limits
    ``celery.chord_unlock`` to ``CHORD_UNLOCK_MAX_RETRIES`` polls, keeps tasks whose retry cannot
    be published, gives what replaces a task its headers and the like, refuses to consume the
    monitor queue, and sets up logging where the settings ask for it. A worker calls it by itself
    when it starts (``throw=False``). A producer or a shell may call it, and need not.

    Args:
        app: a Celery app that is configured by :class:`~..conf.config.Config`.
        throw: raise what fails; with False it is logged, and the other steps still run.
            ``app.is_set_up`` is True only where all steps have succeeded.

    Raises:
        ConfigError: the app is not configured by ``Config``.
        ToolboxError, kombu.exceptions.OperationalError: a step failed.
    """
    if getattr(app, "is_set_up", False):
        return
    router_of(app)
    app.is_set_up = False
    done = True
    steps = (
        set_up_logging,
        refuse_other_broker,
        limit_chords,
        keep_retries,
        keep_replacements,
        register_probe,
        guard_monitor_queue,
        name_control_queues,
        lengthen_short_delays,
        announce_stops,
        stop_warm,
        skip_heartbeats,
        fail_unsendable,
        tell_unpatched,
        declare_topology,
        make_tables,
    )
    for step in steps:
        try:
            step(app)
        except Exception as exc:
            if throw:
                raise
            done = False
            # Drivers repeat the URL with its password in their messages.
            logger.error(
                "Setting up the app: %s failed: %s",
                step.__name__,
                mask_url(f"{type(exc).__name__}: {exc}"),
            )
    app.is_set_up = done


def refuse_other_broker(app: Any) -> None:
    """Refuse a broker that ``Celery(broker=...)`` has put in the place of ``Config``'s."""
    require_same_broker(app.conf)


def declare_topology(app: Any) -> None:
    """Declare exchange, work queues, monitor queue and, with quorum queues, the delay queues."""
    router = router_of(app)
    broker = broker_of(app.conf.broker_write_url, app.conf.broker_transport)
    broker.require_possible_queues(router.queues.values())
    with app.connection_for_write() as connection:
        retries = max(3, len(connection.alt))  # each host of a list
        connection.ensure_connection(max_retries=retries, interval_start=0, interval_step=0.2)
        channel = connection.default_channel
        entities = [*router.queues.values(), router.monitor]
        if router.quorum:
            entities += delay_topology(router, router.queues)
        for entity in entities:
            entity(channel).declare()


def limit_chords(app: Any) -> None:
    """Bound the polls of ``celery.chord_unlock``; Celery's own has no limit."""
    app.tasks["celery.chord_unlock"].max_retries = app.conf.CHORD_UNLOCK_MAX_RETRIES


def make_tables(app: Any) -> None:
    """Create what is missing in the result backend's database, where that is an SQL one."""
    url = database_url(app.conf.result_backend)
    if url is None:
        return
    from ..sql.engines import make_engine  # SQLAlchemy
    from ..sql.migrations import upgrade

    engine = make_engine(url, timeout=app.conf.DATABASE_TIMEOUT)
    try:
        upgrade(engine)
    finally:
        engine.dispose()


def stop_warm(app: Any) -> None:
    """Add the step that keeps a warm stop from running tasks twice, for workers."""
    from .fixes.warm_stop import AcceptBeforeFlush  # the worker's part of Celery

    app.steps["consumer"].add(AcceptBeforeFlush)


def skip_heartbeats(app: Any) -> None:
    """Add the step that lets tasks of a solo pool take longer than heartbeats, for workers."""
    from .fixes.heartbeats import SkipInSolo  # the worker's part of Celery

    app.steps["consumer"].add(SkipInSolo)


def fail_unsendable(app: Any) -> None:
    """Add the step that lets a task fail whose arguments would end a worker, for workers."""
    from .fixes.unpicklable_tasks import FailUnsendable  # the worker's part of Celery

    app.steps["worker"].add(FailUnsendable)


def tell_unpatched(app: Any) -> None:
    """Add the step that tells of a gevent or eventlet pool that was not patched, for workers."""
    from .fixes.green_pools import TellUnpatched  # the worker's part of Celery

    app.steps["worker"].add(TellUnpatched)


def announce_stops(app: Any) -> None:
    """Tell a worker's processes when it is to stop, so that none waits long for a database."""
    from .fixes.warm_stop import AnnounceStop  # the worker's part of Celery

    stopping.prepare()
    signals.worker_shutting_down.connect(
        _announce_stop, weak=False, dispatch_uid="workertoolbox.announce_stop"
    )
    app.steps["worker"].add(AnnounceStop)


def _announce_stop(**_: Any) -> None:
    stopping.announce()


def set_up_logging(app: Any) -> None:
    """Log files and Sentry, where the settings ask for them."""
    folder = app.conf.SETUP_FILE_LOGGING
    if folder:
        logs.log_to_files(folder)
        # A worker sets up its own log later, and takes all handlers away before.
        for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
            signal.connect(
                lambda **_: logs.log_to_files(folder), weak=False, dispatch_uid="workertoolbox_logs"
            )
    if app.conf.SETUP_SENTRY_LOGGING:
        logs.report_to_sentry()
