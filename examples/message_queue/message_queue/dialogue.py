"""What a client says and hears, without any input or output: both kinds of clients speak it."""

from __future__ import annotations

import os
from collections import deque

from . import protocol
from .errors import ConnectionClosedError, ProtocolError, PublishError
from .protocol import FrameReader, Framing, Handshake
from .settings import HEAD_SECRET, LARGEST_MAX_MESSAGE_SIZE, TAIL_SECRET


class Dialogue:
    """One connection's state.

    Args:
        handshake: what the client is.
        head_secret, tail_secret: those of the server; default: ``MQ_HEAD_SECRET`` and
            ``MQ_TAIL_SECRET`` of the environment.

    Raises:
        SettingsError: a secret is empty, or both are the same.
    """

    def __init__(
        self, handshake: Handshake, head_secret: str | None, tail_secret: str | None
    ) -> None:
        self.handshake = handshake
        self.framing = Framing.from_secrets(
            os.environ.get("MQ_HEAD_SECRET", HEAD_SECRET) if head_secret is None else head_secret,
            os.environ.get("MQ_TAIL_SECRET", TAIL_SECRET) if tail_secret is None else tail_secret,
        )
        self.restart()

    def restart(self) -> None:
        """A new connection."""
        self._greeting = bytearray()
        self.is_greeted = False
        self._frames = FrameReader(self.framing, LARGEST_MAX_MESSAGE_SIZE)
        self._bodies: deque[bytes] = deque()
        #: A FETCH was sent, and its message has not come.
        self.is_fetching = False

    def feed(self, data: bytes) -> None:
        """Take what the server sent.

        Raises:
            ProtocolError: it refuses the handshake, or does not keep to the protocol.
        """
        if not self.is_greeted:
            self._greeting += data
            found = bytes(self._greeting)
            if found.startswith(protocol.ROGER):
                self.is_greeted = True
                data = found[len(protocol.ROGER) :]
            elif protocol.ROGER.startswith(found):
                return  # a part of it
        self._bodies += self._frames.feed(data)
        if self._frames.error is not None and not self._bodies:
            raise ProtocolError(
                "the server's answer is no frame: are MQ_HEAD_SECRET and MQ_TAIL_SECRET the same "
                "on both sides?"
            )
        if not self.is_greeted and self._bodies:
            raise ProtocolError(f"the server answers {_text(self._bodies.popleft())}")

    @property
    def has_answer(self) -> bool:
        """Whether :meth:`take` has one."""
        return bool(self._bodies)

    def take(self) -> bytes | None:
        """The next frame's body, or None as long as there is none."""
        return self._bodies.popleft() if self._bodies else None

    def closed(self) -> ConnectionClosedError:
        """What to raise when the server has closed the connection."""
        what = "after" if self.is_greeted else "before"
        return ConnectionClosedError(f"the server closed the connection {what} the handshake")

    def encode_message(self, message: str) -> bytes:
        """The frame of a message.

        Raises:
            ValueError: it cannot travel: the protocol would take it for something else.
        """
        if not isinstance(message, str):
            raise TypeError(f"a message is a str, not {type(message).__name__}")
        body = message.encode()  # a lone surrogate is no Unicode: UnicodeEncodeError
        if body == protocol.SHUTDOWN:
            raise ValueError("'SHUTDOWN' is the word that ends the connection: send another text")
        if not self.framing.can_carry(body):
            raise ValueError("the message contains TAIL")
        return self.framing.frame(body)

    def check_acknowledged(self, answer: bytes) -> None:
        """Check the answer to a message.

        Raises:
            PublishError: the message is not known to be in the queue; says why.
        """
        if answer != protocol.ACKNOWLEDGED:
            raise PublishError(_text(answer))


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")
