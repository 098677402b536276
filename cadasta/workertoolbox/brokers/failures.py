"""What an error of a broker means: whether it is away, or the message is at fault."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from kombu.exceptions import KombuError, LimitExceeded, OperationalError

from ..errors import BrokerError, BrokerUnavailableError
from .redis.replies import passes as passes_on_redis

#: AMQP's reply codes of what stays wrong however often one tries: the message (311, 406, 501, 502,
#: 503, 505, 541), or where it goes and who may do it (402, 403, 404, 530, 540).
_LASTING_CODES = frozenset({311, 402, 403, 404, 406, 501, 502, 503, 505, 530, 540, 541})
#: RabbitMQ says 530 and 541 of these as well, which pass.
_PASSING_REASONS = re.compile(r"limit \(\d+\) is reached|is down")
#: redis-py's errors of the connection.
_PASSING_REDIS = frozenset({"redis.exceptions.ConnectionError", "redis.exceptions.TimeoutError"})
#: botocore's errors of the connection and of whoever gives credentials.
_PASSING_BOTO = frozenset(
    f"botocore.exceptions.{name}"
    for name in (
        *("ConnectionError", "HTTPClientError", "NoCredentialsError"),
        *("CredentialRetrievalError", "EndpointConnectionError"),
    )
)
#: How Amazon's codes begin that pass, beside all with a status above 499.
_PASSING_AWS = (
    *("Throttl", "RequestLimitExceeded", "RequestThrottled", "TooManyRequests", "SlowDown"),
    *("ExpiredToken", "RequestExpired", "RequestTimeout", "ServiceUnavailable", "InternalError"),
    *("InternalFailure", "OverLimit", "KmsThrottled", "KMS.Throttling"),
)
#: Errors of the operating system that tell of the values, not of the connection.
_VALUES = frozenset({errno.EINVAL, errno.EMSGSIZE, errno.ENAMETOOLONG, errno.E2BIG})


def is_away(error: BaseException) -> bool:
    """Tell whether the broker is away or busy, so that the same publish may soon succeed.

    False where the message is at fault, or a right or an exchange is missing: that would come back
    for ever. The first cause decides: kombu wraps what its transport raises.

    Args:
        error: what connecting, declaring, publishing or consuming raised, on any broker.
    """
    away = False
    for cause in _causes(error):
        if not isinstance(cause, Exception):
            return False
        verdict = _verdict(cause)
        if verdict is not None:
            away = verdict
            if not away:  # whatever came of it afterwards
                return False
    return away


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error``, and what it was raised from."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and not any(cause is one for one in seen):
        seen.append(cause)
        yield cause
        cause = cause.__cause__


def _verdict(error: Exception) -> bool | None:
    """Whether the broker is away by this error alone; None where it does not tell."""
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__}
    if "amqp.exceptions.AMQPError" in names:
        if "amqp.exceptions.ChannelError" in names:
            passes = "amqp.exceptions.RecoverableChannelError" in names
        else:
            passes = True
        lasting = getattr(error, "reply_code", 0) in _LASTING_CODES
        return passes and not lasting or bool(_PASSING_REASONS.search(str(error)))
    if "amqp.exceptions.MessageNacked" in names:
        return True
    if "botocore.exceptions.ClientError" in names:
        return _aws_is_away(getattr(error, "response", None) or {})
    if "botocore.exceptions.BotoCoreError" in names:
        return bool(names & _PASSING_BOTO)
    if isinstance(error, BrokerError):
        return isinstance(error, BrokerUnavailableError)
    if "redis.exceptions.RedisError" in names:
        return bool(names & _PASSING_REDIS) or passes_on_redis(error)
    if isinstance(error, OSError):
        return error.errno not in _VALUES
    if isinstance(error, OperationalError | LimitExceeded):
        return True
    return False if isinstance(error, KombuError) else None


def _aws_is_away(response: dict[str, dict[str, object]]) -> bool:
    code = str(response.get("Error", {}).get("Code", "")).rpartition("AWS.SimpleQueueService.")[2]
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return (isinstance(status, int) and status >= 500) or code.startswith(_PASSING_AWS)
