"""The defaults that differ from Celery's whatever the broker, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..brokers.broker import Broker
from ..brokers.kinds import number_of_hosts
from ..plain.defaults import Default
from ..routing.names import DEFAULT_QUEUE

#: Seconds in which a list of brokers is tried at least.
MINIMUM_FAILOVER = 15.0


#: Settings of the toolbox itself: type (as in :mod:`.environment`), default, meaning.
OWN: dict[str, tuple[str, Any, str]] = {
    "QUEUES": ("names", None, "All queues that this process consumes from or publishes to."),
    "PLATFORM_QUEUE_NAME": ("string", "platform.fifo", "The monitor queue."),
    "QUEUE_PREFIX": ("string", "dev", "Stands before each queue's name on Amazon SQS."),
    "QUEUE_TYPE": ("string", "classic", "classic or quorum: the type of queues on RabbitMQ."),
    "DURABLE": ("bool", False, "Deliver a task again whose worker died (it may run twice)."),
    "ETA_HORIZON": ("float", None, "The longest countdown or ETA in use, in seconds."),
    "RESULT_DB_USER": ("string", "worker", "Role of the result database."),
    "RESULT_DB_PASS": ("string", "cadasta", "Password of the result database."),
    "RESULT_DB_HOST": ("string", "localhost", "Host of the result database."),
    "RESULT_DB_PORT": ("int", 5432, "Port of the result database."),
    "RESULT_DB_NAME": ("string", "cadasta", "Name of the result database."),
    "CHORD_UNLOCK_MAX_RETRIES": ("int", 21_600, "Polls (one a second) before a chord is given up."),
    "LEDGER_URL": ("string", None, "Database of the ledger; default: the result backend's."),
    "DATABASE_TIMEOUT": (
        "float",
        10.0,
        "Seconds without an answer until a connection to a database is given up; 0: never.",
    ),
    "MONITOR_BATCH": ("int", 500, "Messages that the monitor writes in one transaction."),
    "MONITOR_INTERVAL": ("float", 0.5, "Seconds after which it writes a smaller batch."),
    "MONITOR_REDACT": ("list", (), "Names or patterns of arguments to hide, or a function."),
    "MONITOR_STORE_ARGS": ("bool", True, "Store the tasks' arguments."),
    "MONITOR_MAX_ARGS_BYTES": ("int", 65_536, "Largest JSON of arguments that is stored, bytes."),
    "RECORD_IGNORED": (
        "bool",
        True,
        "Store how tasks ended that ignore their result (no value; one write a task).",
    ),
    "MANAGEMENT_URL": (
        "string",
        None,
        "RabbitMQ's management; default: port 15672, with TLS 15671.",
    ),
    "SETUP_FILE_LOGGING": ("any", False, "True, or a folder: write app.info.log, app.error.log."),
    "SETUP_SENTRY_LOGGING": ("bool", None, "Report to Sentry; default: where SENTRY_DSN is set."),
}

_RETRY: dict[str, Any] = {
    "max_retries": 3,
    "interval_start": 0,
    "interval_step": 0.2,
    "interval_max": 1,
}

#: Celery settings that are the same on every broker.
COMMON: dict[str, Default] = {
    "accept_content": Default(["json"], "A pickled message runs code of whoever sent it."),
    "broker_connection_max_retries": Default(
        None, "A worker waits out a long outage of the broker instead of exiting."
    ),
    "broker_connection_retry_on_startup": Default(
        True, "A worker may start before its broker; Celery's own default is undecided and warns."
    ),
    "broker_pool_acquire_timeout": Default(
        10.0, "delay() raises after 10 seconds where every pooled connection is busy."
    ),
    "control_queue_exclusive": Default(
        True, "RabbitMQ 4.3 refuses transient queues that are not exclusive."
    ),
    "database_create_tables_at_setup": Default(
        False, "Celery's own backend would make tables in every producer, without a lock."
    ),
    "event_queue_exclusive": Default(
        True, "RabbitMQ 4.3 refuses transient queues that are not exclusive."
    ),
    "result_accept_content": Default(["json"], "A pickled result runs code of whoever wrote it."),
    "result_expires": Default(
        None, "History would go after a day, where beat runs; the ledger has its own retention."
    ),
    "result_extended": Default(True, "The result keeps name, worker, queue and retries."),
    "result_serializer": Default("json", "Readable by every client of the database."),
    "task_create_missing_queues": Default(
        False, "An unknown queue is an error, instead of one that nobody records."
    ),
    "task_default_exchange": Default(
        "task_exchange", "The topic exchange that copies each message to the monitor queue."
    ),
    "task_default_exchange_type": Default("topic", "Only a topic exchange can feed the monitor."),
    "task_default_queue": Default(
        DEFAULT_QUEUE, "Takes the tasks that no other queue's name fits."
    ),
    "task_default_routing_key": Default(DEFAULT_QUEUE, "The default queue's binding."),
    "task_publish_retry_policy": Default(
        dict(_RETRY), "delay() raises within seconds where the broker is away."
    ),
    "task_serializer": Default("json", "The ledger stores the arguments as JSON."),
    "task_track_started": Default(True, "Waiting time can be told from running time."),
    "worker_enable_soft_shutdown_on_idle": Default(
        True, "Tasks that wait for their ETA go back to the queue at a shutdown."
    ),
    "worker_soft_shutdown_timeout": Default(
        8.0, "A cold shutdown gives tasks 8 seconds, within a container's usual 10 of grace."
    ),
}

#: What ``DURABLE=True`` sets.
DURABLE: dict[str, Default] = {
    "task_acks_late": Default(True, "The message is acknowledged when the task has ended."),
    "task_reject_on_worker_lost": Default(True, "A task whose process died is delivered again."),
    "worker_prefetch_multiplier": Default(1, "No task waits behind a long one in the same worker."),
}

#: Transport options that are the same on every broker.
TRANSPORT: dict[str, Default] = {
    key: Default(value, "Bounds the attempts to connect, so that delay() raises within seconds.")
    for key, value in _RETRY.items()
}


def transport_defaults(
    broker: Broker, own: Mapping[str, Any], settings: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    """The transport options for a broker.

    Args:
        broker: that of the app.
        own: the toolbox's settings.
        settings: the Celery settings that the user gave, the broker's URLs among them.
        environ: the process's environment.

    Raises:
        ConfigError: the broker cannot do what the settings ask for.
    """
    options = {name: default.value for name, default in TRANSPORT.items()}
    options.update(failover_options(broker, settings))
    options.update(broker.transport_options(own, settings, environ))
    return options


def failover_options(broker: Broker, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What lets each host of a list of URLs be tried, also where those before it are silent.

    kombu gives up after ``max_retries``, and where the first host has taken all of its time.
    """
    urls = (settings.get(f"broker_{name}url") for name in ("", "read_", "write_"))
    hosts = number_of_hosts(*urls)
    if hosts < 2:
        return {}
    return {
        "max_retries": max(_RETRY["max_retries"], hosts),
        "connect_retries_timeout": max(MINIMUM_FAILOVER, hosts * broker.connect_timeout(settings)),
    }
