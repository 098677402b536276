"""The steps of a conversation, each a task on a queue of its own; :mod:`.base` has the rules."""

from __future__ import annotations
