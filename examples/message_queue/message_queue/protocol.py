"""The wire protocol, without any input or output: bytes in, frames out.

After the handshake each side sends ``HEAD`` body ``TAIL``. The stream has no packet borders, so a
reader takes bytes in any portions. White space between two frames is ignored, so that a person at
``nc`` may press Enter.
"""

from __future__ import annotations

import ast
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from .errors import ProtocolError, SettingsError

PRODUCER = "PRODUCER"
CONSUMER = "CONSUMER"
ROGER = b"ROGER"
ACKNOWLEDGED = b"ACKNOWLEDGED"
SHUTDOWN = b"SHUTDOWN"
CLOSE_CON = b"CLOSE_CON"
FETCH = b"FETCH"
ACK = b"ACK"
NACK = b"NACK"
UNKNOWN_WORD = b"UNKNOWN_WORD"

#: The largest body by default, in bytes.
MAX_MESSAGE_SIZE = 65_536
#: The largest handshake, in bytes.
MAX_HANDSHAKE_SIZE = 1024

_WHITE_SPACE = b" \t\r\n\v\f"


@dataclass(frozen=True, slots=True, repr=False)
class Framing:
    """HEAD and TAIL; both are secrets, so they are in no repr."""

    head: bytes
    tail: bytes

    @classmethod
    def from_secrets(cls, head_secret: str, tail_secret: str) -> Framing:
        """The lower-case hex SHA-256 of each secret, as ASCII: 64 bytes each.

        Raises:
            SettingsError: a secret is empty, or both are the same.
        """
        for name, secret in (("MQ_HEAD_SECRET", head_secret), ("MQ_TAIL_SECRET", tail_secret)):
            if not secret:
                raise SettingsError(f"{name} is empty: give the text that all clients use.")
        if head_secret == tail_secret:
            raise SettingsError("MQ_HEAD_SECRET and MQ_TAIL_SECRET are the same: change one.")
        return cls(_digest(head_secret), _digest(tail_secret))

    def frame(self, body: bytes) -> bytes:
        """``body`` between HEAD and TAIL."""
        return b"".join((self.head, body, self.tail))

    def can_carry(self, body: bytes) -> bool:
        """Whether a reader would find the end of ``body`` where it is."""
        return (body + self.tail).find(self.tail) == len(body)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).hexdigest().encode()


class FrameReader:
    """Takes the bytes of a stream in any portions and returns the bodies of its frames.

    Args:
        framing: HEAD and TAIL.
        max_size: the largest body, in bytes.
    """

    def __init__(self, framing: Framing, max_size: int = MAX_MESSAGE_SIZE) -> None:
        self._framing = framing
        self._max_size = max_size
        self._buffer = bytearray()
        self._in_body = False
        #: Where the search for TAIL goes on: what was searched once is not searched again.
        self._searched = 0
        #: What broke the stream. No frame is found after it.
        self.error: ProtocolError | None = None

    @property
    def is_between_frames(self) -> bool:
        """Whether the stream may end here."""
        return not self._in_body and not self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that ``data`` completes; sets :attr:`error` where the stream is broken."""
        bodies: list[bytes] = []
        if self.error is not None:
            return bodies
        self._buffer += data
        try:
            while (body := self._next()) is not None:
                bodies.append(body)
        except ProtocolError as error:
            self.error = error
            self._buffer.clear()
        return bodies

    def _next(self) -> bytes | None:
        if not self._in_body and not self._take_head():
            return None
        tail, buffer = self._framing.tail, self._buffer
        end = buffer.find(tail, self._searched)
        # Without a TAIL all but its beginning is body.
        size = end if end >= 0 else len(buffer) - len(tail) + 1
        if size > self._max_size:
            raise ProtocolError(f"a message is larger than {self._max_size} bytes")
        if end < 0:
            self._searched = max(0, size)
            return None
        body = bytes(buffer[:end])
        del buffer[: end + len(tail)]
        self._in_body, self._searched = False, 0
        return body

    def _take_head(self) -> bool:
        head, buffer = self._framing.head, self._buffer
        blank = len(buffer) - len(buffer.lstrip(_WHITE_SPACE))
        del buffer[:blank]
        if not head.startswith(buffer[: len(head)]):
            raise ProtocolError(
                "that is no frame: each begins with HEAD (is MQ_HEAD_SECRET right?)"
            )
        if len(buffer) < len(head):
            return False
        del buffer[: len(head)]
        self._in_body = True
        return True


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a client says of itself."""

    type: str
    topic: str

    def encode(self) -> bytes:
        """The handshake as JSON."""
        return json.dumps({"type": self.type, "topic": self.topic}).encode()


class HandshakeReader:
    """Takes the bytes of a stream until its first dictionary is complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0
        self._depth = 0
        self._quote = 0
        self._escaped = False

    def feed(self, data: bytes) -> tuple[Handshake, bytes] | None:
        """The handshake and what follows it, or None as long as it is not complete.

        Raises:
            ProtocolError: it is none; says why.
        """
        self._buffer += data
        while self._position < min(len(self._buffer), MAX_HANDSHAKE_SIZE):
            byte = self._buffer[self._position]
            self._position += 1
            if self._closes(byte):
                text = bytes(self._buffer[: self._position])
                return _parse_handshake(text), bytes(self._buffer[self._position :])
        if len(self._buffer) >= MAX_HANDSHAKE_SIZE:
            raise ProtocolError(f"the handshake is larger than {MAX_HANDSHAKE_SIZE} bytes")
        return None

    def _closes(self, byte: int) -> bool:
        """Whether this byte is the last brace, outside of any string."""
        if self._quote:
            if self._escaped:
                self._escaped = False
            elif byte == ord("\\"):
                self._escaped = True
            elif byte == self._quote:
                self._quote = 0
        elif byte in b"'\"":
            self._quote = byte
        elif byte == ord("{"):
            self._depth += 1
        elif byte == ord("}") and self._depth:
            self._depth -= 1
            return self._depth == 0
        if not self._depth and byte not in _WHITE_SPACE:
            raise ProtocolError("begin with {'type': 'PRODUCER' or 'CONSUMER', 'topic': '...'}")
        return False


def _parse_handshake(text: bytes) -> Handshake:
    found = _parse_dictionary(text)
    kind, topic = found.get("type"), found.get("topic")
    if kind not in (PRODUCER, CONSUMER):
        raise ProtocolError("the handshake's type is neither 'PRODUCER' nor 'CONSUMER'")
    if not isinstance(topic, str):
        raise ProtocolError("the handshake names no topic")
    return Handshake(kind, topic)


def _parse_dictionary(text: bytes) -> dict[Any, Any]:
    try:
        decoded = text.decode().strip()
    except UnicodeDecodeError:
        raise ProtocolError("the handshake is not UTF-8") from None
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(decoded)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    raise ProtocolError("the handshake is neither a JSON nor a Python dictionary")
