"""What the embedded broker's file holds: topology, messages, and the consumers that live."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import time
from typing import Any, NamedTuple, TypeVar

from kombu.exceptions import ChannelError
from kombu.transport import virtual
from kombu.transport.virtual.exchange import STANDARD_EXCHANGE_TYPES

from ...errors import BrokerError
from .file import File, Pipe, is_read

logger = logging.getLogger(__name__)
T = TypeVar("T")

BATCH = 500  # messages taken at once at most, however wide the prefetch window
ROUTES = 10_000  # routes that are remembered
REDELIVER = "UPDATE message SET consumer=NULL, deadline=NULL, redelivered=1 WHERE"


class Row(NamedTuple):
    """A message that was taken: its queue, its number, its past, its head (JSON) and its body."""

    queue: str
    id: int
    redelivered: int
    head: str
    body: str | bytes


class Store(File):
    """The broker's file with its meaning; one for each connection.

    A consumer has a random number, under which it takes messages, and a named pipe, that wakes it
    and tells whether it lives: a pipe that nobody reads belongs to a dead process.
    """

    def __init__(self, path: str, busy_timeout: float = 10.0, synchronous: str = "NORMAL") -> None:
        self.writes = 0  # transactions so far, for `doze`
        self.consumer: int | None = None  # our number, once we consume
        self.pipe: Pipe | None = None
        self._dozing = False
        self._to_wake: list[int] = []
        self._unsettled: set[int] = set()
        self._version: int | None = None  # that of the next two
        self._tables: dict[str, tuple[Any, list[Any]]] = {}
        self._routes: dict[tuple[str, str], list[str]] = {}
        super().__init__(path, busy_timeout, synchronous)

    def __del__(self) -> None:
        # Not closed in order: others see the pipe without a reader, and take over.
        self._drop_pipe()
        self.close()

    def write(self, do: Callable[[sqlite3.Connection], T]) -> T:
        """As `File.write`; then wake the consumers that wait for what it brought."""
        with self.lock:
            to_wake: list[int] = []
            self._to_wake = to_wake
            result = super().write(do)
            self.writes += 1
            if self._dozing and self.pipe is not None:
                self.pipe.ring()
        for consumer in to_wake:
            is_read(self._pipe_of(consumer), ring=True)
        return result

    # -- topology

    def change_topology(self, *statements: tuple[Any, ...]) -> None:
        """Run statements, each with its values; a change is noticed by every process."""

        def change(db: sqlite3.Connection) -> None:
            if sum(db.execute(sql, values).rowcount for sql, *values in statements):
                db.execute("UPDATE topology SET version = version + 1")

        self.write(change)

    def delete_queue(self, queue: str) -> None:
        """Delete a queue with its messages and its bindings."""
        self.write(lambda db: self._delete_queue(db, queue))

    def _delete_queue(self, db: sqlite3.Connection, queue: str) -> None:
        db.execute("DELETE FROM message WHERE consumer IS NULL AND queue=?", (queue,))
        db.execute("DELETE FROM message WHERE consumer IS NOT NULL AND queue=?", (queue,))
        db.execute("DELETE FROM binding WHERE queue=?", (queue,))
        db.execute("DELETE FROM holder WHERE queue=?", (queue,))
        db.execute("DELETE FROM waiting WHERE queue=?", (queue,))
        db.execute("DELETE FROM queue WHERE name=?", (queue,))
        db.execute("UPDATE topology SET version = version + 1")

    def route(self, db: sqlite3.Connection, exchange: str, routing_key: str) -> list[str]:
        """Return the queues for a publish; ChannelError if there is no such exchange."""
        if not exchange:
            return [routing_key]
        (version,) = db.execute("SELECT version FROM topology").fetchone()
        if version != self._version or len(self._routes) > ROUTES:
            self._routes.clear()
            self._tables = {
                name: (STANDARD_EXCHANGE_TYPES[kind](None), [])
                for name, kind in db.execute("SELECT name, type FROM exchange")
            }
            for name, key, queue in db.execute("SELECT exchange, routing_key, queue FROM binding"):
                matcher, table = self._tables[name]
                table.append(matcher.prepare_bind(queue, name, key, None))
            self._version = version
        route = self._routes.get((exchange, routing_key))
        if route is None:
            if exchange not in self._tables:
                raise ChannelError(
                    f"NOT_FOUND - no exchange {exchange!r} in {self.path}: declare it first",
                    (60, 40),
                    "Channel.basic_publish",
                    "404",
                )
            matcher, table = self._tables[exchange]
            route = sorted(matcher.lookup(table, exchange, routing_key, None))
            self._routes[exchange, routing_key] = route
        return route

    # -- messages

    def publish(
        self, exchange: str, routing_key: str, priority: int, head: str, body: str | bytes
    ) -> None:
        """Put a message into all queues that it is routed to, in one transaction."""
        if not self._routes.get((exchange, routing_key)) and not self.read(
            lambda db: self.route(db, exchange, routing_key)
        ):
            return

        def insert(db: sqlite3.Connection) -> None:
            queues = self.route(db, exchange, routing_key)
            db.executemany(
                "INSERT INTO message (queue, rank, head, body) VALUES (?, ?, ?, ?)",
                [(queue, -priority, head, body) for queue in queues],
            )
            self._rouse(db, queues)

        self.write(insert)

    def take(self, queues: Sequence[str], most: int, seconds: float) -> list[Row]:
        """Take up to `most` messages from the queues, in their order, for so many seconds."""
        found: list[Row] = []

        def take(db: sqlite3.Connection) -> None:
            for queue in queues:
                rows = db.execute(
                    "SELECT queue, id, redelivered, head, body FROM message"
                    " WHERE queue=? AND consumer IS NULL ORDER BY rank, id LIMIT ?",
                    (queue, most - len(found)),
                )
                found.extend(map(Row._make, rows.fetchall()))
            db.executemany(
                "UPDATE message SET consumer=?, deadline=? WHERE id=?",
                [(self.consumer, time() + seconds, row.id) for row in found],
            )

        if self.read(lambda db: any(self._has_ready(db, queue) for queue in queues)):
            self.write(take)
        return found

    def _has_ready(self, db: sqlite3.Connection, queue: str) -> bool:
        query = "SELECT 1 FROM message WHERE queue=? AND consumer IS NULL LIMIT 1"
        return db.execute(query, (queue,)).fetchone() is not None

    def settle(self, ids: Iterable[int]) -> None:
        """Delete messages that are done; if that fails, the next call does it as well.

        One that became overdue and that nobody has taken since is deleted as well; one that
        another consumer has by now is left to that one.
        """
        query = "DELETE FROM message WHERE id=? AND (consumer=? OR consumer IS NULL)"
        with self.lock:
            self._unsettled.update(ids)
            values = [(number, self.consumer) for number in self._unsettled]
            self.write(lambda db: db.executemany(query, values))
            self._unsettled.clear()

    def put_back(self, rows: Iterable[tuple[int, str]], redelivered: bool = True) -> None:
        """Put messages, given with their queues, back to where they were in them."""
        rows = list(rows)

        def put_back(db: sqlite3.Connection) -> None:
            db.executemany(
                "UPDATE message SET consumer=NULL, deadline=NULL, redelivered=max(redelivered, ?)"
                " WHERE id=? AND consumer=?",
                [(redelivered, number, self.consumer) for number, _ in rows],
            )
            self._rouse(db, {queue for _, queue in rows})

        if rows:
            self.write(put_back)

    def size(self, queue: str) -> int:
        """Return the number of messages that wait in a queue."""
        query = "SELECT count(*) FROM message WHERE queue=? AND consumer IS NULL"
        return int(self.rows(query, queue)[0][0])

    def purge(self, queue: str) -> int:
        """Delete the messages that wait in a queue; return their number."""
        query = "DELETE FROM message WHERE queue=? AND consumer IS NULL"
        return self.write(lambda db: db.execute(query, (queue,)).rowcount)

    # -- consumers

    def _pipe_of(self, consumer: int) -> str:
        return os.path.join(self.path + "-consumers", f"{consumer:x}")

    def join(self) -> Pipe:
        """Become a consumer, if not yet one; return the pipe that wakes us."""
        if self.pipe is None:
            consumer = secrets.randbits(62)
            pipe = Pipe(self._pipe_of(consumer))
            try:
                self.write(lambda db: db.execute("INSERT INTO consumer VALUES (?)", (consumer,)))
            except BaseException:
                os.unlink(pipe.path)
                pipe.close()
                raise
            self.pipe, self.consumer = pipe, consumer
        return self.pipe

    def leave(self) -> None:
        """Be no consumer any more; what is still taken goes back."""
        pipe, consumer = self.pipe, self.consumer
        if pipe is not None and consumer is not None:
            try:
                self.settle(())
                self.write(lambda db: self._bury(db, consumer, True))
                os.unlink(pipe.path)
            except (BrokerError, OSError) as error:
                logger.warning("Consumer %x did not leave in order: %s", consumer, error)
            self._drop_pipe()

    def forked(self) -> None:
        """As `File.forked`: the consumer is the parent, not the child."""
        super().forked()
        self._drop_pipe()

    def _drop_pipe(self) -> None:
        pipe, self.pipe, self.consumer, self._dozing = self.pipe, None, None, False
        if pipe is not None:
            pipe.close()

    def hold(self, queue: str) -> None:
        """Keep a temporary queue as long as we live or until `release`."""
        query = "INSERT OR IGNORE INTO holder SELECT name, ? FROM queue WHERE name=? AND temporary"
        self.write(lambda db: db.execute(query, (self.consumer, queue)))

    def release(self, queue: str) -> None:
        """Hold a queue no more; a temporary one that nobody holds is deleted."""
        self.write(lambda db: self._release(db, queue, self.consumer))

    def _release(self, db: sqlite3.Connection, queue: str, consumer: int | None) -> None:
        query = "DELETE FROM holder WHERE queue=? AND consumer=?"
        if db.execute(query, (queue, consumer)).rowcount:
            if not db.execute("SELECT 1 FROM holder WHERE queue=?", (queue,)).fetchone():
                self._delete_queue(db, queue)

    def await_messages(self, queues: Iterable[str]) -> None:
        """Ask to be woken, once, by the next message of these queues."""
        values = [(queue, self.consumer) for queue in queues]
        query = "INSERT OR IGNORE INTO waiting VALUES (?, ?)"
        if values:
            self.write(lambda db: db.executemany(query, values))

    def _rouse(self, db: sqlite3.Connection, queues: Iterable[str]) -> None:
        for queue in queues:
            query = "SELECT consumer FROM waiting WHERE queue=?"
            waiting = [consumer for (consumer,) in db.execute(query, (queue,))]
            if waiting:
                db.execute("DELETE FROM waiting WHERE queue=?", (queue,))
                self._to_wake += waiting

    def doze(self, writes: int, seconds: float) -> bool:
        """Sleep until woken (True) or for so long (False); not if there were writes since."""
        pipe = self.join()
        with self.lock:
            self._dozing = self.writes == writes
        try:
            return not self._dozing or pipe.wait(seconds)
        finally:
            self._dozing = False

    def recover(self, detect_dead: bool) -> None:
        """Put back what is overdue, and what dead consumers had taken."""
        if self._unsettled:
            self.settle(())
        dead = [
            consumer
            for (consumer,) in self.rows("SELECT id FROM consumer")
            if not is_read(self._pipe_of(consumer))
        ]
        overdue = "FROM message WHERE consumer IS NOT NULL AND deadline < ?"

        def recover(db: sqlite3.Connection) -> int:
            count = sum(self._bury(db, consumer, detect_dead) for consumer in dead)
            rows = db.execute(f"SELECT id, queue {overdue}", (time(),)).fetchall()
            db.executemany(f"{REDELIVER} id=?", [(number,) for number, _ in rows])
            self._rouse(db, {queue for _, queue in rows})
            return count + len(rows)

        if dead or self.rows(f"SELECT 1 {overdue} LIMIT 1", time()):
            count = self.write(recover)
            for consumer in dead:
                with suppress(OSError):
                    os.unlink(self._pipe_of(consumer))
            if count:
                logger.warning("Messages that were not acknowledged are delivered again: %d", count)

    def _bury(self, db: sqlite3.Connection, consumer: int, messages: bool) -> int:
        count = 0
        if messages:
            query = "SELECT DISTINCT queue FROM message WHERE consumer=?"
            queues = [queue for (queue,) in db.execute(query, (consumer,))]
            count = db.execute(f"{REDELIVER} consumer=?", (consumer,)).rowcount
            self._rouse(db, queues)
        db.execute("DELETE FROM waiting WHERE consumer=?", (consumer,))
        query = "SELECT queue FROM holder WHERE consumer=?"
        for (queue,) in db.execute(query, (consumer,)).fetchall():
            self._release(db, queue, consumer)
        db.execute("DELETE FROM consumer WHERE id=?", (consumer,))
        return count


class QoS(virtual.QoS):
    """What a channel was given and has not acknowledged, by delivery tag, in order."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        # Without super(): the base restores at exit, in a way that is not ours.
        self.channel = channel
        self.prefetch_count = prefetch_count
        self._unacked: dict[int, tuple[int, str]] = {}  # tag -> number and queue of the message
        self._last_tag = 0

    def can_consume(self) -> bool:
        """Tell whether the prefetch window has room."""
        return self.can_consume_max_estimate() > 0

    def can_consume_max_estimate(self) -> int:
        """Return how many more messages may be taken at once."""
        if not self.prefetch_count:
            return 1  # whoever takes more than he works on keeps them from others
        return min(BATCH, max(0, self.prefetch_count - len(self._unacked)))

    def add(self, row: Row) -> int:
        """Note a message that was taken; return its delivery tag."""
        self._last_tag += 1
        self._unacked[self._last_tag] = (row.id, row.queue)
        return self._last_tag

    def ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Delete a message, or with `multiple` all up to it. Unknown tags are ignored."""
        with self.channel.store.lock:
            tags = self._tags(delivery_tag, multiple)
            ids = [self._unacked.pop(tag)[0] for tag in tags]
            if ids:
                self.channel.store.settle(ids)

    def reject(self, delivery_tag: int, requeue: bool = False) -> None:
        """Delete a message, or put it back into its queue. Unknown tags are ignored."""
        if requeue:
            self.put_back([delivery_tag])
        else:
            self.ack(delivery_tag)

    def put_back(self, tags: list[int], redelivered: bool = True) -> None:
        """Put messages back to where they were in their queues."""
        with self.channel.store.lock:
            tags = [tag for tag in tags if tag in self._unacked]
            self.channel.store.put_back([self._unacked[tag] for tag in tags], redelivered)
            for tag in tags:
                del self._unacked[tag]

    def restore_unacked(self) -> None:
        """Put everything back."""
        self.put_back(list(self._unacked))

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """As `restore_unacked`."""
        self.restore_unacked()

    def _tags(self, delivery_tag: int, multiple: bool) -> list[int]:
        if multiple:
            unseen = self.channel.unseen()
            return [tag for tag in self._unacked if tag <= delivery_tag and tag not in unseen]
        return [delivery_tag] if delivery_tag in self._unacked else []
