"""The server's settings, read from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import SettingsError
from .protocol import MAX_MESSAGE_SIZE, Framing
from .topics import check_topic

HOST = "127.0.0.1"
PORT = 15333
#: The secrets where none are given: fine on one's own machine, refused on any other address.
HEAD_SECRET = "HEAD"  # noqa: S105
TAIL_SECRET = "TAIL"  # noqa: S105
#: A message is several times as large in the broker, where JSON escapes it. SQS takes 575 KiB.
LARGEST_MAX_MESSAGE_SIZE = 16 * 1024 * 1024

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server needs to know. Environment variable and default are with each field.

    Raises:
        SettingsError: a value cannot work; names it and the remedy.
    """

    #: ``MQ_HEAD_SECRET``, ``MQ_TAIL_SECRET``: shared with all clients; kept out of repr.
    head_secret: str = field(default=HEAD_SECRET, repr=False)
    tail_secret: str = field(default=TAIL_SECRET, repr=False)
    #: ``MQ_TOPICS``: the only topics that are allowed, separated by commas; empty: any.
    topics: tuple[str, ...] = ()
    #: ``MQ_MAX_MESSAGE_SIZE``: the largest body, in bytes of UTF-8.
    max_message_size: int = MAX_MESSAGE_SIZE
    #: ``MQ_RECORD``: leave a row of each message in the table ``mq_message``.
    record: bool = False
    #: ``MQ_MAX_CONNECTIONS``: more are refused. 0: as many as the system's limit on files allows.
    max_connections: int = 0
    #: ``MQ_PUBLISH_TIMEOUT``: seconds after which a message that could not be sent to the broker
    #: is refused.
    publish_timeout: float = 30.0
    #: ``MQ_HANDSHAKE_TIMEOUT``: seconds that a new connection has to say what it is.
    handshake_timeout: float = 10.0

    def __post_init__(self) -> None:
        self.framing()
        for topic in self.topics:
            check_topic(topic)
        if not 1 <= self.max_message_size <= LARGEST_MAX_MESSAGE_SIZE:
            raise SettingsError(
                f"MQ_MAX_MESSAGE_SIZE is {self.max_message_size}: give bytes from 1 to "
                f"{LARGEST_MAX_MESSAGE_SIZE}."
            )
        if self.max_connections < 0:
            raise SettingsError(f"MQ_MAX_CONNECTIONS is {self.max_connections}: give 0 or more.")
        for name in ("publish_timeout", "handshake_timeout"):
            if not 0 < getattr(self, name) < 86_400:
                raise SettingsError(f"MQ_{name.upper()} is {getattr(self, name)}: give seconds.")

    def framing(self) -> Framing:
        """HEAD and TAIL."""
        return Framing.from_secrets(self.head_secret, self.tail_secret)

    @property
    def has_default_secrets(self) -> bool:
        """Whether anybody who has read this file knows the secrets."""
        return HEAD_SECRET == self.head_secret or TAIL_SECRET == self.tail_secret

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the variables named above; default: those of this process.

        Raises:
            SettingsError: a variable does not parse; names it.
        """
        found = os.environ if environ is None else environ
        topics = [topic.strip() for topic in found.get("MQ_TOPICS", "").split(",")]
        return cls(
            head_secret=found.get("MQ_HEAD_SECRET", HEAD_SECRET),
            tail_secret=found.get("MQ_TAIL_SECRET", TAIL_SECRET),
            topics=tuple(dict.fromkeys(filter(None, topics))),
            max_message_size=_whole(found, "MQ_MAX_MESSAGE_SIZE", MAX_MESSAGE_SIZE),
            record=_flag(found, "MQ_RECORD"),
            max_connections=_whole(found, "MQ_MAX_CONNECTIONS", 0),
            publish_timeout=_seconds(found, "MQ_PUBLISH_TIMEOUT", 30.0),
            handshake_timeout=_seconds(found, "MQ_HANDSHAKE_TIMEOUT", 10.0),
        )


def _whole(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    try:
        return int(text) if text else default
    except ValueError:
        raise SettingsError(f"{name} is {text!r}: give a whole number.") from None


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    try:
        return float(text) if text else default
    except ValueError:
        raise SettingsError(f"{name} is {text!r}: give seconds.") from None


def _flag(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name, "").strip().lower()
    if text in _TRUE | _FALSE:
        return text in _TRUE
    raise SettingsError(f"{name} is {text!r}: give 1 or 0.")
