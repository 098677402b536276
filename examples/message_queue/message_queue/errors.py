"""Everything that this package raises."""

from __future__ import annotations


class MessageQueueError(Exception):
    """The root of this package's errors."""


class SettingsError(MessageQueueError, ValueError):
    """A setting cannot work; names it and the remedy."""


class TopicError(MessageQueueError, ValueError):
    """The name of a topic cannot be used."""


class ProtocolError(MessageQueueError):
    """The other side does not keep to the protocol."""


class PublishError(MessageQueueError):
    """A message was not acknowledged: it is not known to be in the queue."""


class FetchError(MessageQueueError):
    """A topic cannot be read."""


class ConnectionClosedError(MessageQueueError, ConnectionError):
    """The server closed the connection, or it was never open."""


class NotRunningError(MessageQueueError):
    """No server of this machine listens on that port."""
