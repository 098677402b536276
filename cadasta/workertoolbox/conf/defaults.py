"""Every default that differs from Celery's, with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..brokers.kinds import number_of_hosts
from ..brokers.visibility import visibility_timeout
from ..routing.names import DEFAULT_QUEUE

#: Celery's own patience with a host that it connects to, in seconds.
CONNECTION_TIMEOUT = 4.0
#: Seconds in which a list of brokers is tried at least.
MINIMUM_FAILOVER = 15.0


class Default(NamedTuple):
    """A default value and why it is not Celery's."""

    value: Any
    reason: str


#: Amazon SQS, with boto3's own search for credentials: environment, profile, instance role.
BROKER_URL = "sqs://"

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
TRANSPORT_AMQP: dict[str, Default] = {
    "confirm_publish": Default(True, "Without the broker's confirmation a publish can vanish."),
    "confirm_timeout": Default(
        30.0, "delay() raises where RabbitMQ is out of memory or disk, and confirms nothing."
    ),
    "answer_timeout": Default(
        15.0, "A RabbitMQ that does not answer, as to a declaration, counts as gone."
    ),
    "write_timeout": Default(15.0, "So does one that takes nothing in."),
}
TRANSPORT_REDIS: dict[str, Default] = {
    "confirm_timeout": Default(
        30.0, "delay() raises where Redis takes a message and does not answer."
    ),
    "socket_timeout": Default(
        30.0, "Workers notice that Redis does not answer; waiting for a message is not cut short."
    ),
    "socket_connect_timeout": Default(5.0, "delay() raises where the host does not answer."),
    "socket_keepalive": Default(True, "A connection that a firewall dropped is noticed."),
}
AMQP_SETTINGS: dict[str, Default] = {
    "broker_heartbeat": Default(
        20.0, "A RabbitMQ that is frozen is left within a minute; Celery's 120 take four."
    ),
}
SQS_SETTINGS: dict[str, Default] = {
    "worker_enable_remote_control": Default(False, "Amazon SQS has no fan-out."),
    "worker_send_task_events": Default(False, "Amazon SQS has no fan-out; the ledger needs none."),
    "task_send_sent_event": Default(False, "Amazon SQS has no fan-out; the ledger needs none."),
}


def transport_defaults(
    kind: str, own: Mapping[str, Any], settings: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    """The transport options for one kind of broker.

    Args:
        kind: as :func:`broker_kind` tells.
        own: the toolbox's settings.
        settings: the Celery settings that the user gave, the broker's URLs among them.
        environ: the process's environment.

    Raises:
        ConfigError: a time limit or the ETA horizon is above the 12 hours of Amazon SQS.
    """
    options = {name: default.value for name, default in TRANSPORT.items()}
    options.update(failover_options(kind, settings))
    if kind == "amqp":
        options.update((name, default.value) for name, default in TRANSPORT_AMQP.items())
    if kind == "redis":
        options.update((name, default.value) for name, default in TRANSPORT_REDIS.items())
    if kind in {"redis", "sqs", "embedded"}:
        options["visibility_timeout"] = visibility_timeout(kind, own, settings)
    if kind == "sqs":
        given = settings.get("broker_transport_options") or {}
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-west-2"
        options.update(region=region, wait_time_seconds=20)
        if own["QUEUE_PREFIX"] and not given.get("predefined_queues"):
            options["queue_name_prefix"] = f"{own['QUEUE_PREFIX']}-"
    return options


def failover_options(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What lets each host of a list of URLs be tried, also where those before it are silent.

    kombu gives up after ``max_retries``, and where the first host has taken all of its time.
    """
    urls = (settings.get(f"broker_{name}url") for name in ("", "read_", "write_"))
    hosts = number_of_hosts(*urls)
    if hosts < 2:
        return {}
    patience = float(settings.get("broker_connection_timeout") or CONNECTION_TIMEOUT)
    if kind == "redis":
        given = settings.get("broker_transport_options") or {}
        default = TRANSPORT_REDIS["socket_connect_timeout"].value
        patience = float(given.get("socket_connect_timeout") or default)
    return {
        "max_retries": max(_RETRY["max_retries"], hosts),
        "connect_retries_timeout": max(MINIMUM_FAILOVER, hosts * patience),
    }
