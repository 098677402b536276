"""Whether a broker is away, by the errors of each."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from amqp import exceptions as amqp
from botocore import exceptions as boto
from kombu.exceptions import ContentDisallowed, EncodeError, LimitExceeded, OperationalError
from redis import exceptions as redis

from cadasta.workertoolbox.brokers.failures import is_away
from cadasta.workertoolbox.errors import (
    BrokerError,
    BrokerUnavailableError,
    TopologyError,
    UnconfirmedError,
)


def aws(code: str, status: int = 400) -> boto.ClientError:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(response, "SendMessage")


def wrapped(cause: Exception) -> OperationalError:
    """As kombu wraps what it could not do."""
    error = OperationalError(str(cause))
    error.__cause__ = cause
    return error


AWAY = [
    amqp.ConnectionForced("CONNECTION_FORCED - broker forced connection closure"),
    amqp.RecoverableConnectionError("connection already closed"),
    amqp.ResourceError("no memory"),
    amqp.ResourceLocked("locked"),
    amqp.NotAllowed("access to vhost refused: connection limit (5) is reached"),
    amqp.InternalError("access to vhost refused: vhost 'x' is down"),
    amqp.MessageNacked(),
    OSError(errno.ECONNREFUSED, "refused"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    TimeoutError("timed out"),
    socket.gaierror(-2, "Name or service not known"),
    UnconfirmedError("not confirmed"),
    OperationalError("Timed out waiting for a broker producer"),
    LimitExceeded(10),
    boto.EndpointConnectionError(endpoint_url="https://sqs"),
    boto.ReadTimeoutError(endpoint_url="https://sqs"),
    boto.NoCredentialsError(),
    aws("ThrottlingException"),
    aws("AWS.SimpleQueueService.RequestThrottled"),
    aws("ServiceUnavailable", 503),
    aws("ExpiredToken", 403),
    redis.ConnectionError("refused"),
    redis.TimeoutError("timeout"),
    redis.BusyLoadingError("loading"),
    redis.ReadOnlyError("You can't write against a read only replica."),
    redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
    redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"),
    redis.ResponseError("Command # 1 (LPUSH a x) of pipeline caused error: MISCONF Redis"),
    BrokerUnavailableError("locked"),
]
AT_FAULT = [
    amqp.FrameError("frame_too_large"),
    amqp.FrameSyntaxError("syntax"),
    amqp.InvalidCommand("command"),
    amqp.UnexpectedFrame("frame"),
    amqp.InternalError("INTERNAL_ERROR"),
    amqp.ContentTooLarge("too large"),
    amqp.PreconditionFailed("message size 2 is larger than configured max size 1"),
    amqp.NotFound("no exchange"),
    amqp.AccessRefused("refused"),
    amqp.NotAllowed("vhost not found"),
    EncodeError("no JSON"),
    ContentDisallowed("pickle"),
    TopologyError("no such queue"),
    struct.error("ubyte format requires 0 <= number <= 255"),
    TypeError("no"),
    ValueError("Can't publish a batch"),
    boto.ParamValidationError(report="MessageBody"),
    aws("InvalidParameterValue"),
    aws("AWS.SimpleQueueService.BatchRequestTooLong"),
    aws("InvalidMessageContents"),
    aws("AccessDenied", 403),
    redis.DataError("Invalid input"),
    redis.ResponseError("Protocol error: invalid bulk length"),
    redis.ResponseError("WRONGTYPE Operation against a key"),
    redis.NoPermissionError("this user has no permissions"),
    BrokerError("too big"),
]


@pytest.mark.parametrize("error", AWAY, ids=repr)
def test_it_is_away(error: Exception) -> None:
    assert is_away(error)
    assert is_away(wrapped(error))


@pytest.mark.parametrize("error", AT_FAULT, ids=repr)
def test_the_message_is_at_fault(error: Exception) -> None:
    assert not is_away(error)
    if not isinstance(error, TopologyError | struct.error | TypeError | ValueError):
        assert not is_away(wrapped(error))  # which kombu does with its transports' own alone


def test_what_the_broker_cut_for_the_message_is_the_messages_fault() -> None:
    error = amqp.FrameError("too large")
    error.__cause__ = ConnectionResetError(errno.ECONNRESET, "reset")
    assert not is_away(wrapped(error))
    assert not is_away(KeyboardInterrupt())
