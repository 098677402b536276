"""The toolbox's exceptions, with one root, so that a caller can catch them all."""

from __future__ import annotations

from kombu.exceptions import EncodeError, OperationalError


class ToolboxError(Exception):
    """Root of every error that the toolbox raises by itself."""


class ConfigError(ToolboxError, ValueError):
    """A setting, an argument or an environment variable that cannot work."""


class TopologyError(ToolboxError):
    """A publish or a consume that the exchange and its queues do not allow."""


class MessageError(ToolboxError):
    """A message of the monitor queue that is not a task message."""


class BrokerError(ToolboxError):
    """A broker cannot be used, such as the embedded one's file."""


class BrokerUnavailableError(BrokerError):
    """A broker cannot be used just now (its file is locked, its disk full): try again later."""


class UnconfirmedError(ToolboxError, OperationalError):
    """The broker has not said within ``confirm_timeout`` that it has a message; it may have it.

    On Redis also: it has not answered something else within ``socket_timeout``.
    """


class LedgerError(ToolboxError):
    """The task ledger cannot be read or written as asked."""


class ResultError(ToolboxError, EncodeError):
    """A result that its database refuses, such as one that is too large; the task fails with it."""
