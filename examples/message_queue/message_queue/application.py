"""The Celery app: the toolbox's settings for the topics of this server."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from cadasta.workertoolbox import Config

from .settings import Settings
from .topics import MESSAGE, queue_name

#: The folder of the embedded broker and its ledger, where no broker is named.
FOLDER = ".workertoolbox"
#: JSON of one byte of UTF-8, at worst: ``\u0000``.
LARGEST_ESCAPE = 6
TRANSPORT_OPTIONS = "CELERY_BROKER_TRANSPORT_OPTIONS"
#: Seconds after which a broker hands out again what a client holds, where nobody has set it. On
#: SQS a server that lives extends it; the embedded broker knows by itself who is dead.
VISIBILITY_TIMEOUTS = {"sqs": 60, "embedded": 7 * 86_400}


def make_app(settings: Settings) -> Celery:
    """An app whose queues are the topics.

    Without ``CELERY_BROKER_URL`` broker and ledger are files in ``.workertoolbox``.

    Raises:
        cadasta.workertoolbox.ConfigError: a setting of the toolbox cannot work.
    """
    # Where any topic goes, its queue is made at its first use; the setting wants a name.
    queues = [queue_name(topic) for topic in settings.topics] or [queue_name("any")]
    options: dict[str, Any] = {}
    if "CELERY_MONITOR_MAX_ARGS_BYTES" not in os.environ:
        # The ledger shall have each message as a whole.
        options["MONITOR_MAX_ARGS_BYTES"] = LARGEST_ESCAPE * settings.max_message_size + 64
    app = Celery("message_queue", set_as_current=False)
    if os.environ.get("CELERY_BROKER_URL"):
        config = Config(queues, **options)
    else:
        if os.environ.get("CELERY_RESULT_BACKEND"):
            options["result_backend"] = os.environ["CELERY_RESULT_BACKEND"]
        # The rows may go elsewhere all the same; Config.local itself asks no variable.
        options.setdefault("LEDGER_URL", os.environ.get("CELERY_LEDGER_URL"))
        config = Config.local(queues, FOLDER, **options)
    app.config_from_object(config)
    timeout = VISIBILITY_TIMEOUTS.get(driver_type(app))
    if timeout and "visibility_timeout" not in os.environ.get(TRANSPORT_OPTIONS, ""):
        config.broker_transport_options["visibility_timeout"] = timeout
    return app


def queue_of(app: Celery, topic: str) -> Queue:
    """The topic's queue, bound to the topic exchange, as the toolbox would declare it."""
    conf = app.conf
    name = queue_name(topic)
    for queue in conf.task_queues:
        if queue.name == name:
            return queue
    exchange = Exchange(conf.task_default_exchange, type=conf.task_default_exchange_type)
    quorum = conf.QUEUE_TYPE == "quorum" and driver_type(app) == "amqp"
    arguments = {"x-queue-type": "quorum"} if quorum else None
    return Queue(name, exchange, routing_key=name, queue_arguments=arguments)


def driver_type(app: Celery) -> str:
    """The kind of broker: ``amqp``, ``sqs``, ``redis``, ``embedded`` or another of kombu's."""
    return str(app.connection_for_write().get_transport_cls().driver_type)


def publish(
    app: Celery, producer: Any, queue: Queue, message_id: str, body: str, **properties: Any
) -> None:
    """Publish one message of a topic through ``producer``; the exchange copies it to the ledger."""
    app.send_task(
        MESSAGE,
        args=(body,),
        task_id=message_id,
        queue=queue,
        producer=producer,
        ignore_result=True,  # nobody reports one: it is not unfinished work
        add_to_parent=False,
        retry=False,  # the publisher does, and knows what was confirmed
        **properties,
    )
