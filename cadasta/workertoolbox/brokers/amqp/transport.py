"""kombu's RabbitMQ transport, whose every wait for the broker has an end.

A RabbitMQ that is out of memory or disk space takes connections and messages, and confirms nothing
until it has room again. One that is frozen, or whose host is gone without a word, does not answer
at all. kombu's own transport waits with them for ever: ``delay()`` hangs, and so does each worker,
which waits for the confirmation of its own heartbeat. No worker then takes the messages that fill
the broker. Seen with kombu 5.7 and RabbitMQ 3.10.

Which wait ends when, and what it raises:

- connecting: ``broker_connection_timeout`` for the host, and thrice that for the whole handshake
  (OSError);
- writing a message, and the wait for its confirmation: ``confirm_timeout`` each
  (RecoverableConnectionError, :class:`~...errors.UnconfirmedError`);
- any other answer, such as to a declaration: ``answer_timeout`` (OSError);
- closing a channel or a connection: ``CLOSE_TIMEOUT``.

Where an error says that the connection is lost, kombu opens a new one, to the next broker of its
list, and publishes again.
"""

from __future__ import annotations

import errno
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from time import monotonic
from typing import Any

from amqp import Message, spec
from amqp.exceptions import AMQPError, FrameError, MessageNacked, RecoverableConnectionError
from amqp.transport import SSLTransport as SSLSocket
from amqp.transport import TCPTransport as TCPSocket
from kombu.transport import pyamqp

from ...errors import UnconfirmedError
from ...plain.forks import around_forks
from .expiring import EXPIRING

#: AMQP's delivery mode of messages that a broker need not keep, as those of Celery's events.
TRANSIENT = 1
#: Seconds. A broker without room does not read that a connection is closed, on which something
#: was published: each worker's stop would wait for it.
CLOSE_TIMEOUT = 1.0
#: Seconds that a broker may take for an answer that is no confirmation.
ANSWER_TIMEOUT = 15.0
#: How many times its timeout a connection's whole handshake may take.
HANDSHAKES = 3
#: Seconds to look for what the broker said before it cut a connection.
LAST_WORDS = 0.2
#: Until the operating system gives up a host that is gone. py-amqp's own are 1,000 ms for what was
#: sent, which ends connections for a moment's loss of the network, and for a broker that takes in a
#: large message slowly; and 70 s without traffic. Transport option ``socket_settings``.
SOCKET_SETTINGS = {
    "TCP_USER_TIMEOUT": 5_000,  # milliseconds without an acknowledgement, or without room for more
    "TCP_KEEPIDLE": 15,  # seconds without traffic, then probes
    "TCP_KEEPINTVL": 5,  # seconds between two
    "TCP_KEEPCNT": 3,  # unanswered
}
#: How the names of the exchanges of Celery's remote control end.
CONTROL_SUFFIX = ".pidbox"
#: Bytes of a message's header frame beside its properties.
_FRAME_OVERHEAD = 20


def _is_transient(properties: dict[str, Any]) -> bool:
    """Whether it is a message that may be lost, and no task."""
    headers = properties.get("application_headers") or ()
    return properties.get("delivery_mode") == TRANSIENT and "task" not in headers


@contextmanager
def _reading(connection: Any, seconds: float | None) -> Iterator[None]:
    """Let what is read meanwhile be read within so many seconds; None: whenever it comes."""
    before = connection.read_until
    connection.read_until = None if seconds is None else monotonic() + seconds
    try:
        yield
    finally:
        connection.read_until = before


class Channel(pyamqp.Channel):
    """A channel whose publishes end, whether the broker confirms them or not."""

    _confirm_selected: bool  # py-amqp's: whether the broker confirms on this channel
    #: Publishes since then; the broker counts them as well.
    _published = 0
    #: Whether it has refused a message of the last publish, which may have two.
    _is_refused = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: The numbers of the last publish's messages of which the broker has not said anything.
        self._unsettled: set[int] = set()
        super().__init__(*args, **kwargs)

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
            amqp.exceptions.RecoverableConnectionError, OSError: the connection is lost.
            amqp.exceptions.MessageNacked: the broker refuses the message.
            amqp.exceptions.FrameError: headers and properties are larger than a frame.
        """
        connection = self.connection
        if connection is None:
            raise RecoverableConnectionError("basic_publish: connection closed")
        limit = confirm_timeout or connection.confirm_timeout or None
        awaited = not (exchange.endswith(CONTROL_SUFFIX) or _is_transient(msg.properties))
        if awaited and not self._confirm_selected:
            self._confirm_selected = True
            self.confirm_select()
            # They come at any time: py-amqp reads before it writes the second message of a task.
            self.events["basic_ack"].add(self._note_confirmed)
            self.events["basic_nack"].add(self._note_refused)
        self._unsettled.clear()
        self._is_refused = False
        try:
            # A message that is not written in whole does not count, and is tried again.
            done = self._basic_publish(msg, exchange, *args, timeout=timeout or limit, **kwargs)
            if awaited:
                self._wait_for_confirmation(connection, limit)
        except (OSError, RecoverableConnectionError, FrameError) as exc:
            _refuse_large_headers(connection, msg, exc)
            connection.raise_last_words()
            raise
        return done

    def _basic_publish(
        self, msg: Any, exchange: str = "", routing_key: str = "", *args: Any, **kwargs: Any
    ) -> Any:
        """Write a message; of a task that expires on the broker, the monitor's copy first.

        RabbitMQ drops each copy of a message when it expires. So these are two messages, each to
        its queue alone, and whoever dies between the two has lost no record.
        """
        expiring = msg.properties.pop(EXPIRING, None)
        if expiring is not None:
            properties = dict(msg.properties)
            headers = {**properties.pop("application_headers"), **expiring.headers}
            copy = Message(msg.body, application_headers=headers, **properties)
            super()._basic_publish(copy, "", expiring.monitor, *args, **kwargs)
            self._count()
            msg.properties["expiration"] = str(expiring.milliseconds)
            exchange, routing_key = "", expiring.queue
        done = super()._basic_publish(msg, exchange, routing_key, *args, **kwargs)
        self._count()
        return done

    #: Where the user has turned confirmations off, py-amqp's own name for it.
    basic_publish = _basic_publish

    def _do_revive(self) -> None:
        # The broker has closed the channel, for an error, and counts anew on the next one.
        self._published = 0
        super()._do_revive()

    def _count(self) -> None:
        """Note that a message is written, and that the broker will say something of it."""
        if self._confirm_selected:
            self._published += 1
            self._unsettled.add(self._published)

    def _note_confirmed(self, number: int, is_multiple: bool) -> None:
        self._unsettled -= self._meant(number, is_multiple)

    def _note_refused(self, number: int, is_multiple: bool) -> None:
        self._is_refused |= bool(self._meant(number, is_multiple))
        self._note_confirmed(number, is_multiple)

    def _meant(self, number: int, is_multiple: bool) -> set[int]:
        """Return those of the last publish's messages of which the broker speaks.

        They are settled in any order, as their queues are; 0 stands for all.
        """
        if is_multiple:
            return {one for one in self._unsettled if one <= number or not number}
        return self._unsettled & {number}

    def _wait_for_confirmation(self, connection: Connection, limit: float | None) -> None:
        """Wait until the broker has confirmed each message of the last publish, or refused one."""
        try:
            with _reading(connection, limit):
                while self._unsettled and not self._is_refused:
                    super().wait([spec.Basic.Ack, spec.Basic.Nack])
        except TimeoutError as exc:
            # The confirmation may still come, and is not to be taken for another message's.
            connection.collect()
            raise UnconfirmedError(
                f"RabbitMQ did not confirm a message within {limit:g} seconds; it may have it all "
                f"the same. Look for its alarms: 'rabbitmq-diagnostics alarms'."
            ) from exc
        if self._is_refused:
            raise MessageNacked(
                "RabbitMQ refused a message: a queue that it goes to is full "
                "(x-overflow: reject-publish) or out of order."
            )

    def wait(
        self, method: Any, callback: Any = None, timeout: float | None = None, **options: Any
    ) -> Any:
        """Wait for the broker's answer, for ``answer_timeout`` seconds at most.

        Raises:
            OSError: there was none; the connection is closed, since it may still come.
        """
        if timeout is not None:
            return super().wait(method, callback, timeout, **options)
        with _answering(self.connection):
            return super().wait(method, callback, **options)

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close it; wait for ``CLOSE_TIMEOUT`` seconds at most for the broker to agree."""
        with _reading(self.connection, CLOSE_TIMEOUT) if self.connection else nullcontext():
            return super().close(*args, **kwargs)


@contextmanager
def _answering(connection: Any) -> Iterator[None]:
    """Give up ``connection`` where the broker does not answer in time."""
    limit = getattr(connection, "answer_timeout", None)
    if not limit or connection.read_until is not None:  # who set that deals with it
        yield
        return
    try:
        with _reading(connection, limit):
            yield
    except TimeoutError as exc:
        connection.collect()
        raise _lost(f"RabbitMQ did not answer within {limit:g} seconds") from exc


def _lost(reason: str) -> OSError:
    # Not OSError(ETIMEDOUT), which is a TimeoutError: "nothing has come" to all who read.
    return ConnectionAbortedError(errno.ETIMEDOUT, reason)


def _refuse_large_headers(connection: Any, msg: Any, cause: BaseException) -> None:
    """Say so where a failed publish had more headers than AMQP can carry.

    The broker cuts the connection, before it has read them: it looks as if it went away.
    """
    size = len(msg._serialize_properties())
    if size + _FRAME_OVERHEAD > connection.frame_max:
        connection.collect()
        raise FrameError(
            f"the headers and properties of a message take {size:,} bytes; RabbitMQ takes "
            f"{connection.frame_max:,} (frame_max). Pass large values as arguments."
        ) from cause


class _Socket:
    """What differs from py-amqp's sockets: ETIMEDOUT means that the host is gone.

    Python makes a TimeoutError of it, which py-amqp takes for "nothing has come so far".
    """

    connected: bool

    def _get_tcp_socket_defaults(self, sock: Any) -> dict[int, int]:
        found: dict[int, int] = super()._get_tcp_socket_defaults(sock)  # type: ignore[misc]
        ours = {getattr(socket, name, None): value for name, value in SOCKET_SETTINGS.items()}
        return {option: ours.get(option, value) for option, value in found.items()}

    def read_frame(self, *args: Any) -> Any:
        try:
            return super().read_frame(*args)  # type: ignore[misc]
        except TimeoutError as exc:
            self._raise_if_dead(exc)
            raise

    def write(self, data: Any) -> None:
        try:
            super().write(data)  # type: ignore[misc]
        except TimeoutError as exc:
            self._raise_if_dead(exc)
            raise

    def _raise_if_dead(self, exc: TimeoutError) -> None:
        if exc.errno == errno.ETIMEDOUT:
            self.connected = False
            raise _lost("RabbitMQ's host does not answer any more") from exc

    def forget(self: Any) -> None:
        """Close this process's copy of the socket; a parent's connection lives on."""
        sock, self.sock, self.connected = self.sock, None, False
        if sock is not None:
            sock.close()  # py-amqp's close would shut the connection down, for both


class _TCPSocket(_Socket, TCPSocket):
    """Without TLS."""


class _SSLSocket(_Socket, SSLSocket):
    """With TLS."""


class Connection(pyamqp.Connection):
    """A connection that can stop reading at a given moment."""

    Channel = Channel

    #: Where a read has to end, on the monotonic clock. py-amqp's own timeout begins anew with each
    #: frame, heartbeats among them.
    read_until: float | None = None

    def __init__(
        self,
        *args: Any,
        confirm_timeout: float | None = None,
        answer_timeout: float | None = ANSWER_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        #: Seconds; the transport options of these names.
        self.confirm_timeout = confirm_timeout
        self.answer_timeout = answer_timeout
        _connections.add(self)
        around_forks(after_in_child=_forget_all)

    def Transport(
        self,
        host: str,
        connect_timeout: float | None,
        ssl: Any = False,
        read_timeout: float | None = None,
        write_timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """The socket to use."""
        return (_SSLSocket if ssl else _TCPSocket)(
            host,
            connect_timeout=connect_timeout,
            ssl=ssl,
            read_timeout=read_timeout,
            write_timeout=write_timeout,
            **options,
        )

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Connect, within thrice ``connect_timeout`` seconds once there is a socket."""
        limit = self.connect_timeout
        with _reading(self, HANDSHAKES * limit if limit else None):
            return super().connect(*args, **kwargs)

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the broker's answer, for ``answer_timeout`` seconds at most."""
        with _answering(self):
            return super().wait(*args, **kwargs)

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close it; wait for ``CLOSE_TIMEOUT`` seconds at most for the broker to agree."""
        with _reading(self, CLOSE_TIMEOUT):
            return super().close(*args, **kwargs)

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Read one frame."""
        if self.read_until is not None:
            left = self.read_until - monotonic()
            if left <= 0:
                raise TimeoutError
            timeout = left if timeout is None else min(timeout, left)
        return super().blocking_read(timeout)

    def raise_last_words(self) -> None:
        """Raise what the broker said before it cut the connection, if it said anything.

        Its reason often waits to be read when a write already fails.
        """
        if self._transport is None or self._transport.sock is None:
            return
        try:
            with _reading(self, LAST_WORDS):
                while True:
                    self.blocking_read()
        except AMQPError:
            raise
        except Exception:  # nothing, or no frame
            return

    def forget(self) -> None:
        """Leave the connection to the parent process, from which this one was forked."""
        if self._transport is not None:
            self._transport.forget()
        self.collect()


#: All connections of this process.
_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def _forget_all() -> None:
    """Leave all connections to the process from which this one was forked.

    Two processes that write to one connection mix their frames. Celery and kombu see to that in
    their own pool's processes alone, and shut the connection down for the parent as well.
    """
    for connection in list(_connections):
        connection.forget()


class Transport(pyamqp.Transport):
    """For ``amqp://``."""

    Connection = Connection


class SSLTransport(Transport, pyamqp.SSLTransport):
    """For ``amqps://``."""
