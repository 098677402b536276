"""Gives up a database that does not answer: no driver's call ends by itself then.

A frozen server or proxy still acknowledges TCP's packets, so that no option of the socket helps. A
thread, one a process, looks after the connections in use and shuts the socket of a silent one down;
the driver's call then fails as if the server had gone. Connections are opened in a thread of their
own, so that the wait for them has an end and can be interrupted.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DisconnectionError

from ..plain import stopping
from ..plain.forks import around_forks
from .dialects import Database
from .keepalive import keep_alive

logger = logging.getLogger(__name__)

#: Seconds that a wait may still take, and go on, once the process has been asked to stop.
HURRY = 3.0
#: Seconds between two looks at the connections in use.
TICK = 0.5
#: Lets PostgreSQL (14 and later) look, every two seconds of a statement, whether its client is
#: still there. It would notice at the statement's end alone: each try of a statement that waits for
#: a lock would leave a session behind that waits on. Only where nobody has set it, not even to 0.
#: No startup parameter, which PgBouncer refuses; and whoever shares a server connection with us
#: there is served no worse by it.
NOTICE_GONE_CLIENTS = (
    "SELECT set_config(name, '2000', false) FROM pg_settings "
    "WHERE name = 'client_connection_check_interval' AND source = 'default'"
)

_WAIT = "workertoolbox_wait"
_USED = "workertoolbox_used"


class Watch:
    """Looks after the connections of one engine of a database server.

    Args:
        engine: of psycopg2, psycopg, PyMySQL or mysqlclient; new.
        database: what it is an engine of.
        timeout: seconds without an answer after which a connection is given up.
        is_bounded: give it up whatever the reason. Otherwise a statement may take its time: after
            half the timeout a second connection is opened, and as long as that succeeds in the
            other half, the server is merely busy.
        connect_timeout: seconds for a new connection; None: as long as the driver takes.
        ping_after: seconds of idleness after which a connection is asked before it is used.
    """

    def __init__(
        self,
        engine: Engine,
        database: Database,
        timeout: float,
        *,
        is_bounded: bool,
        connect_timeout: float | None,
        ping_after: float,
    ) -> None:
        self.timeout = timeout
        self.most = timeout if is_bounded else None
        self.place = f"{engine.url.host or 'localhost'}, database {engine.url.database}"
        self._database = database
        self._dialect = engine.dialect
        self._connect_timeout = connect_timeout
        self._ping_after = ping_after
        self._arguments: tuple[Any, Any] | None = None
        self._hurried: float | None = None
        # Not by SQLAlchemy's event ``do_connect``, of which the first that connects is the last to
        # be heard: an application's own, which renews a password, say, may come later.
        self._open, engine.dialect.connect = engine.dialect.connect, self._connect  # type: ignore[method-assign]
        event.listen(engine, "connect", self._connected, insert=True)
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine, "checkin", self._checked_in)
        for name in ("close", "invalidate"):
            event.listen(engine, name, self._ended)

    def hurry(self, is_urgent: bool) -> None:
        """From now on wait for no more than :data:`HURRY` seconds, or as ever."""
        self._hurried = time.monotonic() if is_urgent else None

    def is_over(self, start: float, now: float) -> bool:
        """Tell whether a wait since ``start`` has to end because the process is to stop."""
        moment = stopping.since() if self._hurried is None else self._hurried
        return moment is not None and now - max(moment, start) >= HURRY

    # -- connections ----------------------------------------------------------------------------

    def _connect(self, *args: Any, **kwargs: Any) -> Any:
        self._arguments = args, kwargs
        try:
            attempt = _Attempt(self._open, args, kwargs)
        except RuntimeError:  # Python starts no thread when it ends
            return self._open(*args, **kwargs)
        start = time.monotonic()
        try:
            while not attempt.ended.wait(TICK):
                now = time.monotonic()
                is_late = self._connect_timeout and now - start >= self._connect_timeout
                if is_late or self.is_over(start, now):
                    driver = self._dialect.loaded_dbapi
                    text = f"no answer from {self.place} in {now - start:.0f} s"
                    raise self._database.unreachable(driver, text)
            return attempt.taken()
        finally:
            attempt.abandon()

    def _connected(self, connection: Any, record: Any) -> None:
        self._database.connected(connection)
        handle = _handle(connection)
        if handle is None:
            return  # a driver that hides its socket
        record.info[_WAIT] = wait = _Wait(self, connection, os.fstat(handle).st_ino)
        wait.begin(self.timeout)  # the dialect's first questions follow
        if self._database.keeps_alive:  # PostgreSQL's driver
            _let_server_notice(connection)
        else:
            keep_alive(handle, self.timeout)

    def _checked_out(self, connection: Any, record: Any, proxy: object) -> None:
        info = record.info
        wait, used = info.get(_WAIT), info.get(_USED)
        if used is not None and time.monotonic() - used >= self._ping_after:
            if wait is not None:
                wait.begin(self.timeout)
            try:
                alive = self._dialect.do_ping(connection)
            except Exception as exc:  # whatever the driver raises for a dead connection
                raise DisconnectionError(str(exc)) from exc
            if not alive:
                raise DisconnectionError("the database closed the connection")
        if wait is not None:
            wait.begin(self.most)

    def _checked_in(self, connection: Any, record: Any) -> None:
        info = record.info
        if _WAIT in info:
            info[_WAIT].end()
        info[_USED] = time.monotonic()

    def _ended(self, connection: Any, record: Any, *error: Any) -> None:
        wait = record.info.get(_WAIT)
        if wait is not None:
            wait.end()

    # -- looking --------------------------------------------------------------------------------

    def probe(self) -> _Attempt | None:
        """Open another connection, to see whether the server answers at all."""
        if self._arguments is None:
            return None  # the application's own creator
        return _Attempt(self._open, *self._arguments, is_probe=True)


def allow(connection: Connection, patience: float | None) -> None:
    """Let the statements of this checkout take longer: so many times the timeout; None: any time.

    A server that does not answer at all is given up as before.
    """
    wait = connection.connection.info.get(_WAIT)
    if wait is not None:
        wait.most = None if patience is None else patience * wait.watch.timeout


class _Attempt:
    """A connection that is being opened in a thread; whoever does not want it any more abandons it.

    The driver's own limits end the thread.
    """

    def __init__(self, open_: Any, args: Any, kwargs: Any, is_probe: bool = False) -> None:
        self.start = time.monotonic()
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._is_unwanted = is_probe
        self._connection: Any = None
        self._error: BaseException | None = None
        arguments = (open_, args, kwargs)
        threading.Thread(
            target=self._run, args=arguments, name="database-connect", daemon=True
        ).start()

    def _run(self, open_: Any, args: Any, kwargs: Any) -> None:
        connection = None
        try:
            connection = open_(*args, **kwargs)
        except BaseException as exc:  # raised where the connection is waited for
            self._error = exc
        with self._lock:
            if not self._is_unwanted:
                self._connection, connection = connection, None
        self.ended.set()
        if connection is not None:
            connection.close()

    def taken(self) -> Any:
        """Return the connection, or raise what the driver raised."""
        with self._lock:
            connection, self._connection = self._connection, None
        if self._error is not None:
            raise self._error
        return connection

    def abandon(self) -> None:
        """Close the connection, now or when it comes."""
        with self._lock:
            self._is_unwanted = True
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Wait:
    """One connection; while it is in use, somebody waits for its database."""

    __slots__ = ("_connection", "_inode", "_probe", "_probed", "_start", "most", "watch")

    def __init__(self, watch: Watch, connection: Any, inode: int) -> None:
        self.watch = watch
        self.most: float | None = None
        self._connection = connection
        self._inode = inode
        self._start = self._probed = 0.0
        self._probe: _Attempt | None = None

    def begin(self, most: float | None) -> None:
        """Somebody begins to wait, for at most so many seconds; None: while the server answers."""
        self.most = most
        self._start = self._probed = time.monotonic()
        _watchdog.add(self)

    def end(self) -> None:
        """Nobody waits any more."""
        _watchdog.remove(self)
        self._probe = None

    def look(self, now: float) -> None:
        """Give the connection up where that is due; the watchdog calls it again and again."""
        watch = self.watch
        if (self.most is not None and now - self._start >= self.most) or watch.is_over(
            self._start, now
        ):
            self._give_up(now)
            return
        if self.most == watch.timeout:
            return
        half, probe = watch.timeout / 2, self._probe
        if probe is None:
            if now - self._probed >= half:
                self._probe = watch.probe()
                self._probed = now
        elif probe.ended.is_set():  # also with an error: that is an answer
            self._probe, self._probed = None, now
        elif now - probe.start >= half:
            self._give_up(now)

    def _give_up(self, now: float) -> None:
        self.end()
        try:
            handle = _handle(self._connection)
            if handle is None:
                return
            # A duplicate cannot be closed meanwhile, and the inode tells that it is ours.
            handle = os.dup(handle)
        except Exception:  # closed already, as each driver says it
            return
        if os.fstat(handle).st_ino != self._inode:
            os.close(handle)
            return
        logger.warning(
            "The database at %s has not answered for %.0f s: its connection is given up",
            self.watch.place,
            now - self._start,
        )
        with socket.socket(fileno=handle) as duplicate:
            try:
                duplicate.shutdown(socket.SHUT_RDWR)
            except OSError:  # the other side was faster
                pass


class _Watchdog:
    """The thread that looks at what is waited for; it sleeps while nothing is."""

    def __init__(self) -> None:
        self._start_over()

    def _start_over(self) -> None:
        self._waits: dict[_Wait, None] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._awake = threading.Event()
        self._ending = threading.Event()

    def add(self, wait: _Wait) -> None:
        """Look after this one."""
        self._waits[wait] = None
        if self._thread is None:
            self._begin()
        if not self._awake.is_set():
            self._awake.set()

    def remove(self, wait: _Wait) -> None:
        """Look after it no more."""
        self._waits.pop(wait, None)

    def _begin(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            # No thread crosses a fork, and Python 3.12 warns of a fork beside one.
            around_forks(
                before=self._end,
                after_in_parent=self._go_on,
                after_in_child=self._start_over,
            )
            self._ending.clear()
            self._thread = threading.Thread(target=self._run, name="database-watch", daemon=True)
            self._thread.start()

    def _end(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ending.set()
            self._awake.set()
            thread.join(TICK)

    def _go_on(self) -> None:
        if self._waits:
            self._begin()

    def _run(self) -> None:
        while not self._ending.is_set():
            self._awake.wait()
            self._ending.wait(TICK)
            now = time.monotonic()
            for wait in list(self._waits):
                try:
                    wait.look(now)
                except Exception:  # it has to look after the others as well
                    logger.exception("A database connection cannot be watched")
            if not self._waits:
                self._awake.clear()
                if self._waits:
                    self._awake.set()


_watchdog = _Watchdog()


def _handle(connection: Any) -> int | None:
    """Return the descriptor of the driver's socket, or None where it has none to show."""
    stream = connection if hasattr(connection, "fileno") else getattr(connection, "_sock", None)
    return None if stream is None else int(stream.fileno())


def _let_server_notice(connection: Any) -> None:
    """Let PostgreSQL end a statement of this connection when we have given it up."""
    try:
        commits_itself, connection.autocommit = connection.autocommit, True
        try:
            with connection.cursor() as cursor:
                cursor.execute(NOTICE_GONE_CLIENTS)
        finally:
            connection.autocommit = commits_itself
    except Exception as exc:  # as each driver names it: of what only looks like PostgreSQL, say
        if connection.closed:
            raise
        logger.debug("The database does not look for its clients: %s", type(exc).__name__)
