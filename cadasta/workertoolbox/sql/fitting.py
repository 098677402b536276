"""Text made to fit a column: cut, or escaped, so that nothing is refused for its text."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ..plain.json_text import harmless

#: What stands at the end of a text that was cut.
MARK = "..."
#: The longest id, in characters, in Celery's result tables and in ours.
ID_LENGTH = 155
#: The name of MySQL's three-byte UTF-8, which Python does not have.
UTF8MB3 = "utf8mb3"

_BEYOND_UTF8MB3 = re.compile("[^\0-\uffff]")


@dataclass(frozen=True, slots=True)
class Fitting:
    """What the text columns of a table take.

    Args:
        codec: Python's name of their character set, or :data:`UTF8MB3`; None for all of Unicode.
    """

    codec: str | None = None

    def text(self, text: str, length: int) -> str:
        """Return ``text`` with what the database refuses escaped, as ``\\u0434``, and cut.

        Args:
            length: the column's, in characters. What is longer ends with :data:`MARK`.
        """
        if "\0" in text or not text.isascii():
            text = self._storable(text)
        if len(text) <= length:
            return text
        return text[: length - len(MARK)] + MARK

    def key(self, task_id: str, length: int = ID_LENGTH) -> str:
        """Return what stands for an id in the table: the id itself, wherever that is possible.

        Of one that is too long, or has characters that the database refuses, the beginning, a
        tilde and the SHA-256 of the whole, so that two ids never become one.
        """
        if len(task_id) <= length and (
            (task_id.isascii() and "\0" not in task_id) or self._storable(task_id) == task_id
        ):
            return task_id
        digest = hashlib.sha256(task_id.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._storable(task_id)[: length - len(digest) - 1]}~{digest}"

    def _storable(self, text: str) -> str:
        text = harmless(text)
        if self.codec is None:
            return text
        if self.codec == UTF8MB3:
            return _BEYOND_UTF8MB3.sub(lambda found: f"\\U{ord(found[0]):08x}", text)
        return text.encode(self.codec, "backslashreplace").decode(self.codec)


def key(task_id: str) -> str:
    """Return what stands for an id in the ledger's tables; see :meth:`Fitting.key`."""
    return task_id if len(task_id) <= ID_LENGTH else Fitting().key(task_id)
