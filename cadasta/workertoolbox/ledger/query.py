"""Which tasks are meant: conditions as a value, the same for all who ask the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone
from typing import Any

from ..errors import LedgerError
from ..plain.json_text import dump, read_value, write_value
from ..plain.moments import read_duration, read_moment, write_duration, write_moment

#: What begins the names of headers in the parameters of a query.
HEADER = "header."


class FrozenHeaders(Mapping[str, Any]):
    """Headers that nobody can change, as their JSON has them: 1 is not ``True`` in there."""

    __slots__ = ("_text",)

    def __init__(self, headers: Mapping[str, Any]) -> None:
        self._text = json.dumps(json.loads(dump(dict(headers))), sort_keys=True)

    def __getitem__(self, name: str) -> Any:
        return json.loads(self._text)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(json.loads(self._text))

    def __len__(self) -> int:
        return len(json.loads(self._text))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenHeaders):
            return self._text == other._text
        return super().__eq__(other)

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return repr(json.loads(self._text))


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Query:
    """Which tasks are meant: those that meet all of its conditions; without any, all.

    It is frozen, compares and hashes by what it says, and is pickled. Of several states, names or
    queues a task has one.

    Args:
        states: one state or several, such as ``PENDING`` (no result yet) or ``FAILURE``.
        names: one task name or several; ``*`` in it stands for any characters.
        queues: one queue or several that it was published to.
        root_id: the workflow's first task, which is a member itself.
        parent_id: the task that published it.
        since, until: first published at or after, and before; aware.
        unfinished_for: without a final result, though published, and due, at least so long ago;
            see :meth:`cadasta.workertoolbox.Ledger.unfinished`.
        headers: values that the custom headers contain; nested as well.

    Raises:
        LedgerError: a condition that cannot be one; it names the field and the remedy.
    """

    states: tuple[str, ...]
    names: tuple[str, ...]
    queues: tuple[str, ...]
    root_id: str | None
    parent_id: str | None
    since: datetime | None
    until: datetime | None
    unfinished_for: timedelta | None
    headers: Mapping[str, Any]

    def __init__(
        self,
        *,
        states: str | Iterable[str] | None = None,
        names: str | Iterable[str] | None = None,
        queues: str | Iterable[str] | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        unfinished_for: timedelta | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> None:
        checked = {
            "states": _texts("states", states),
            "names": _texts("names", names),
            "queues": _texts("queues", queues),
            "root_id": None if root_id is None else _text("root_id", root_id),
            "parent_id": None if parent_id is None else _text("parent_id", parent_id),
            "since": None if since is None else aware("since", since),
            "until": None if until is None else aware("until", until),
            "unfinished_for": None if unfinished_for is None else _age(unfinished_for),
            "headers": _headers(headers),
        }
        for name, condition in checked.items():
            object.__setattr__(self, name, condition)

    def __repr__(self) -> str:
        conditions = ((field.name, getattr(self, field.name)) for field in fields(self))
        given = (f"{name}={value!r}" for name, value in conditions if value or value == timedelta())
        return f"Query({', '.join(given)})"

    @property
    def asks_results(self) -> bool:
        """Whether it takes the tasks' results to answer it."""
        return bool(self.states) or self.unfinished_for is not None

    def to_params(self) -> dict[str, str]:
        """Return the query as flat text, as the parameters of a URL are; empty without conditions.

        Several states, names or queues are separated by commas (one within a text is ``\\,``),
        times are ISO 8601 in UTC, durations such as ``2h``; a header is ``header.<name>``, with
        its value as JSON, or as it is where it is text that does not look like JSON.
        """
        params = {
            name: write(condition)
            for name, (_, write) in _PARAMS.items()
            if (condition := getattr(self, name)) not in (None, ())
        }
        params.update({HEADER + name: write_value(value) for name, value in self.headers.items()})
        return params

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> Query:
        """Return the query of parameters as :meth:`to_params` gives them.

        As ``since`` and ``until`` a duration will do as well, which means so long before now.

        Raises:
            LedgerError: a name that is no condition (those of a page, such as ``after``, are not),
                or a text that its condition cannot be.
        """
        conditions: dict[str, Any] = {}
        headers: dict[str, Any] = {}
        for name, text in params.items():
            if name not in _PARAMS and not name.startswith(HEADER):
                raise LedgerError(
                    f"{name!r} is no condition of a query: there are {', '.join(_PARAMS)}, and "
                    f"{HEADER}<name> for a header."
                )
            if not isinstance(text, str):
                raise LedgerError(
                    f"{name}={text!r} is no text: give each parameter as one, as "
                    "Query.to_params() does."
                )
            if name.startswith(HEADER):
                headers[name.removeprefix(HEADER)] = read_value(text)
                continue
            read, _ = _PARAMS[name]
            try:
                conditions[name] = read(text)
            except ValueError as exc:
                raise LedgerError(f"{name}: {exc}") from None
        return cls(**conditions, headers=headers)


def aware(field: str, moment: datetime) -> datetime:
    """Return ``moment`` in UTC; :class:`LedgerError`, which names ``field``, if it cannot be."""
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        what = "has no time zone" if isinstance(moment, datetime) else "is no time"
        raise LedgerError(
            f"{field}={moment!r} {what}: give an aware datetime, such as "
            "datetime.now(timezone.utc)."
        )
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError:
        raise LedgerError(
            f"{field}={moment!r} is out of the calendar in UTC: give a later or an earlier one."
        ) from None


def _text(field: str, text: str) -> str:
    if not isinstance(text, str) or not text:
        raise LedgerError(f"{field}={text!r} is no text to look for: give one, or leave it out.")
    return text


def _texts(field: str, texts: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return them in an order of their own, each once, so that equal conditions are equal."""
    if texts is None:
        return ()
    if isinstance(texts, str):
        return (_text(field, texts),)
    if not isinstance(texts, Iterable) or isinstance(texts, Mapping):
        raise LedgerError(f"{field}={texts!r} is neither a text nor texts: give one, or a list.")
    return tuple(sorted({_text(field, text) for text in texts}))


def _age(age: timedelta) -> timedelta:
    try:
        if age < timedelta():
            raise OverflowError
        datetime.now(timezone.utc) - age
    except (OverflowError, TypeError):
        raise LedgerError(
            f"unfinished_for={age!r} is not an age: give a timedelta, such as timedelta(hours=1)."
        ) from None
    return age


def _headers(headers: Mapping[str, Any] | None) -> FrozenHeaders:
    if headers is None or isinstance(headers, FrozenHeaders):
        return headers or FrozenHeaders({})
    if not isinstance(headers, Mapping):
        raise LedgerError(
            f"headers is a {type(headers).__name__}, no mapping: give the names and values that "
            "the custom headers contain, such as {'tenant': 5}."
        )
    try:
        return FrozenHeaders(headers)
    except (RecursionError, ValueError):  # the latter of more digits than Python writes
        raise LedgerError(
            "headers are nested too deeply, or hold too large a number, to be looked for: give "
            "less of them."
        ) from None


def _joined(texts: tuple[str, ...]) -> str:
    return ",".join(text.replace("\\", "\\\\").replace(",", "\\,") for text in texts)


def _split(text: str) -> list[str]:
    parts, is_escaped = [""], False
    for character in text:
        if is_escaped or character not in "\\,":
            parts[-1] += character
            is_escaped = False
        elif character == ",":
            parts.append("")
        else:
            is_escaped = True
    return parts


#: How each condition but the headers is read from its parameter, and written to it.
_PARAMS: dict[str, tuple[Callable[[str], Any], Callable[[Any], str]]] = {
    "states": (_split, _joined),
    "names": (_split, _joined),
    "queues": (_split, _joined),
    "root_id": (str, str),
    "parent_id": (str, str),
    "since": (read_moment, write_moment),
    "until": (read_moment, write_moment),
    "unfinished_for": (read_duration, write_duration),
}
