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
    """The embedded broker's database cannot be used."""


class BrokerUnavailableError(BrokerError):
    """The broker's file cannot be used just now (locked, disk full): trying again may help."""


class UnconfirmedError(ToolboxError, OperationalError):
    """The broker has not said within ``confirm_timeout`` that it has a message; it may have it.

    On Redis also: it has not answered something else within ``socket_timeout``.
    """


class LedgerError(ToolboxError):
    """The task ledger cannot be read or written as asked."""


class ResultError(ToolboxError, EncodeError):
    """A result that its database refuses, such as one that is too large; the task fails with it."""
