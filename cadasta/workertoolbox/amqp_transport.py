"""kombu's RabbitMQ transport, whose publishers and workers bear a broker without room.

A RabbitMQ that is out of memory or disk space takes connections and messages, and confirms nothing
until it has room again. kombu's own transport waits with it for ever: ``delay()`` hangs, and so
does each worker, which waits for the confirmation of its own heartbeat. No worker then takes the
messages that fill the broker. Seen with kombu 5.7 and RabbitMQ 3.10.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from time import monotonic
from typing import Any

from amqp import Message, spec
from amqp.exceptions import MessageNacked, RecoverableConnectionError
from kombu.transport import pyamqp

from .errors import UnconfirmedError
from .expiring import EXPIRING

#: AMQP's delivery mode of messages that a broker need not keep, as those of Celery's events.
TRANSIENT = 1
#: Seconds. A broker without room does not read that a connection is closed, on which something
#: was published: each worker's stop would wait for it.
CLOSE_TIMEOUT = 1.0
#: How the names of the exchanges of Celery's remote control end.
CONTROL_SUFFIX = ".pidbox"


def _is_transient(properties: dict[str, Any]) -> bool:
    """Whether it is a message that may be lost, and no task."""
    headers = properties.get("application_headers") or ()
    return properties.get("delivery_mode") == TRANSIENT and "task" not in headers


class Channel(pyamqp.Channel):
    """A channel whose publishes end, whether the broker confirms them or not."""

    _confirm_selected: bool  # py-amqp's: whether the broker confirms on this channel
    #: Publishes since then; the broker counts them as well.
    _published = 0
    #: The number of the first message of the last publish, which may have two.
    _first_of_last = 1

    def basic_publish_confirm(
        self,
        msg: Any,
        exchange: str = "",
        *args: Any,
        timeout: float | None = None,
        confirm_timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Publish, and wait for the confirmation for ``confirm_timeout`` seconds at most.

        Celery's events and remote control are not waited for.

        Raises:
            UnconfirmedError: there was none. It is not published again, since the broker may
                have the message.
            amqp.exceptions.RecoverableConnectionError: the connection is closed.
            amqp.exceptions.MessageNacked: the broker refuses the message.
        """
        if self.connection is None:
            raise RecoverableConnectionError("basic_publish: connection closed")
        limit = confirm_timeout or self.connection.confirm_timeout or None
        awaited = not (exchange.endswith(CONTROL_SUFFIX) or _is_transient(msg.properties))
        if awaited and not self._confirm_selected:
            self._confirm_selected = True
            self.confirm_select()
        # A message that is not written in whole does not count, and is tried again.
        done = self._basic_publish(msg, exchange, *args, timeout=timeout or limit, **kwargs)
        self._published += self._confirm_selected
        if awaited:
            self._wait_for_confirmation(limit)
        return done

    def _basic_publish(
        self, msg: Any, exchange: str = "", routing_key: str = "", *args: Any, **kwargs: Any
    ) -> Any:
        """Write a message; of a task that expires on the broker, the monitor's copy first.

        RabbitMQ drops each copy of a message when it expires. So these are two messages, each to
        its queue alone, and whoever dies between the two has lost no record.
        """
        self._first_of_last = self._published + 1
        expiring = msg.properties.pop(EXPIRING, None)
        if expiring is not None:
            properties = dict(msg.properties)
            headers = {**properties.pop("application_headers"), **expiring.headers}
            copy = Message(msg.body, application_headers=headers, **properties)
            super()._basic_publish(copy, "", expiring.monitor, *args, **kwargs)
            self._published += self._confirm_selected
            msg.properties["expiration"] = str(expiring.milliseconds)
            exchange, routing_key = "", expiring.queue
        return super()._basic_publish(msg, exchange, routing_key, *args, **kwargs)

    #: Where the user has turned confirmations off, py-amqp's own name for it.
    basic_publish = _basic_publish

    def _do_revive(self) -> None:
        # The broker has closed the channel, for an error, and counts anew on the next one.
        self._published = 0
        super()._do_revive()

    def _wait_for_confirmation(self, limit: float | None) -> None:
        """Wait until the broker has confirmed the last message, and all before it."""
        confirmed = 0

        def note(method: Any, delivery_tag: int, *_: Any) -> None:
            nonlocal confirmed
            confirmed = delivery_tag
            if method == spec.Basic.Nack and confirmed >= self._first_of_last:
                raise MessageNacked(
                    "RabbitMQ refused a message: a queue that it goes to is full "
                    "(x-overflow: reject-publish) or out of order."
                )

        connection = self.connection
        try:
            with connection.reading(limit):
                while confirmed < self._published:
                    self.wait([spec.Basic.Ack, spec.Basic.Nack], callback=note)
        except TimeoutError as exc:
            # The confirmation may still come, and is not to be taken for another message's.
            connection.collect()
            raise UnconfirmedError(
                f"RabbitMQ did not confirm a message within {limit:g} seconds; it may have it all "
                f"the same. Look for its alarms: 'rabbitmq-diagnostics alarms'."
            ) from exc

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close it; wait for ``CLOSE_TIMEOUT`` seconds at most for the broker to agree."""
        with self.connection.reading(CLOSE_TIMEOUT) if self.connection else nullcontext():
            return super().close(*args, **kwargs)


class Connection(pyamqp.Connection):
    """A connection that can stop reading at a given moment."""

    Channel = Channel

    #: Where a read has to end, on the monotonic clock. py-amqp's own timeout begins anew with each
    #: frame, heartbeats among them.
    read_until: float | None = None

    def __init__(self, *args: Any, confirm_timeout: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Seconds; the transport option of this name.
        self.confirm_timeout = confirm_timeout

    @contextmanager
    def reading(self, seconds: float | None) -> Iterator[None]:
        """Let what is read meanwhile be read within so many seconds; None: whenever it comes."""
        before, self.read_until = self.read_until, seconds and monotonic() + seconds
        try:
            yield
        finally:
            self.read_until = before

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close it; wait for ``CLOSE_TIMEOUT`` seconds at most for the broker to agree."""
        with self.reading(CLOSE_TIMEOUT):
            return super().close(*args, **kwargs)

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Read one frame."""
        if self.read_until is not None:
            timeout = self.read_until - monotonic()
            if timeout <= 0:
                raise TimeoutError
        return super().blocking_read(timeout)


class Transport(pyamqp.Transport):
    """For ``amqp://``."""

    Connection = Connection


class SSLTransport(Transport, pyamqp.SSLTransport):
    """For ``amqps://``."""
