"""Message queue: a TCP protocol that a beginner can type, in front of a real broker.

>>> from message_queue import Consumer, Producer
>>> with Producer("mail") as producer:
...     producer.publish("hello")
>>> with Consumer("mail") as consumer:
...     print(consumer.fetch())
"""

from __future__ import annotations

from .aio import AsyncConsumer as AsyncConsumer
from .aio import AsyncProducer as AsyncProducer
from .client import Consumer as Consumer
from .client import Producer as Producer
from .errors import ConnectionClosedError as ConnectionClosedError
from .errors import MessageQueueError as MessageQueueError
from .errors import ProtocolError as ProtocolError
from .errors import PublishError as PublishError
from .errors import SettingsError as SettingsError

__version__ = "0.1.0"

__all__ = [
    "AsyncConsumer",
    "AsyncProducer",
    "ConnectionClosedError",
    "Consumer",
    "MessageQueueError",
    "Producer",
    "ProtocolError",
    "PublishError",
    "SettingsError",
]
