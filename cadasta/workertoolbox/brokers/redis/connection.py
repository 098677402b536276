"""redis-py's connections, that neither wait for ever nor take a server that is away for an error.

A Redis whose process or host stands still takes what is sent and answers nothing. One that was
demoted, loads its data or cannot write them to disk answers each command with an error, on which
Celery 5.7 ends the worker. Both pass, as a restart does, and both look like a lost connection here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from redis import exceptions

from ...errors import BrokerUnavailableError
from .replies import passes


class ConnectTimeoutError(exceptions.TimeoutError):
    """The server did not answer while the connection was made: no command was sent."""


class RefusedError(BrokerUnavailableError, exceptions.RedisError, OSError):
    """The server refuses commands for now.

    No ConnectionError of redis-py's: that one would begin a transaction again and again.
    """


class ConnectionMixin:
    """What differs from redis-py's connections."""

    #: Whether it is being made, and has not said hello yet.
    greeting = False

    @contextmanager
    def waiting(self: Any, seconds: float | None) -> Iterator[None]:
        """Let what is sent and read meanwhile wait for so many seconds; None: for ever."""
        self._sock.settimeout(seconds)
        try:
            yield
        finally:
            if self._sock is not None:
                self._sock.settimeout(self.socket_timeout)

    @property
    def connect_timeout(self: Any) -> float | None:
        """Seconds that what needs no work of the server may take."""
        seconds: float | None = getattr(self, "socket_connect_timeout", None)
        return seconds or self.socket_timeout

    def connect_check_health(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Connect; as ``connect``."""
        try:
            return super().connect_check_health(*args, **kwargs)  # type: ignore[misc]
        except exceptions.TimeoutError as exc:
            raise ConnectTimeoutError(
                f"Redis did not answer within {self.connect_timeout or 0:g} seconds of connecting: "
                f"{exc}"
            ) from exc

    def on_connect_check_health(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Say hello; a server that stands still takes connections all the same."""
        self.greeting = True
        try:
            with self.waiting(self.connect_timeout):
                return super().on_connect_check_health(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.greeting = False

    def call(self: Any, limit: float | None, *command: Any) -> Any:
        """Send a command and return its answer.

        Args:
            limit: seconds that both may take together; None: without end.
            command: its words.

        Raises:
            redis.exceptions.TimeoutError: it took longer. The server may have the command.
        """
        deadline = limit and monotonic() + limit
        with self.waiting(limit):
            self.send_command(*command, check_health=False)
            if deadline:
                self._sock.settimeout(max(0.001, deadline - monotonic()))
            return self.read_response()

    def read_response(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Read one answer.

        Raises:
            RefusedError: the server refuses commands for now.
        """
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except exceptions.ResponseError as exc:
            if not passes(exc):
                raise
            self.disconnect()
            raise RefusedError(
                f"Redis refuses commands for now: {type(exc).__name__}: {exc}"
            ) from exc


class HealingMixin(ConnectionMixin):
    """A connection that nobody watches for answers while no command is under way."""

    def check_health(self: Any) -> None:
        """Connect anew where nobody answers on a connection that was not used for a while."""
        if self.greeting:
            super().check_health()  # type: ignore[misc]
            return
        try:
            with self.waiting(self.connect_timeout):
                super().check_health()  # type: ignore[misc]
        except (exceptions.ConnectionError, exceptions.TimeoutError):
            self.disconnect()
            self.connect()


def bounded(connection_class: type, watched: bool) -> type:
    """The class of connections that does what ``connection_class`` does, and the above.

    Args:
        connection_class: one of redis-py's.
        watched: an event loop waits for its answers, so that its socket must not change.
    """
    mixin = ConnectionMixin if watched else HealingMixin
    return type(connection_class.__name__, (mixin, connection_class), {})
