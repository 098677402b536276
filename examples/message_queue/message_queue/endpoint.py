"""What both kinds of clients are made of: where the server is, and what is said to it."""

from __future__ import annotations

from .dialogue import Dialogue
from .protocol import Handshake
from .settings import HOST, PORT
from .topics import check_topic

#: Seconds that a connection, or an answer, may take by default.
TIMEOUT = 30.0


class Endpoint:
    """One side of a connection.

    Args:
        topic: its name.
        host, port: where the server listens.
        timeout: seconds that a connection or an answer may take; None: for ever.
        head_secret, tail_secret: those of the server; default: ``MQ_HEAD_SECRET`` and
            ``MQ_TAIL_SECRET`` of the environment, else the server's defaults.

    Raises:
        TopicError: the topic's name cannot be used.
        SettingsError: a secret is empty, or both are the same.
    """

    #: What the client is, in its handshake.
    TYPE = ""

    def __init__(
        self,
        topic: str,
        host: str = HOST,
        port: int = PORT,
        *,
        timeout: float | None = TIMEOUT,
        head_secret: str | None = None,
        tail_secret: str | None = None,
    ) -> None:
        check_topic(topic)
        self.topic = topic
        self.host = host
        self.port = port
        self.timeout = timeout
        self._dialogue = Dialogue(Handshake(self.TYPE, topic), head_secret, tail_secret)
