"""The statuses of a unit, and which of them may follow which. Pure."""

from __future__ import annotations

PENDING = "pending"
QUEUED = "queued"
PROCESSING = "processing"
SUCCESS = "success"
ERROR = "error"

STATUSES = (PENDING, QUEUED, PROCESSING, SUCCESS, ERROR)
#: These take a place below the limit.
IN_FLIGHT = (QUEUED, PROCESSING)
FINAL = (SUCCESS, ERROR)

#: The way of every unit; each of FINAL is at its end.
_WAY = (PENDING, QUEUED, PROCESSING)


def steps_to(current: str, reported: str) -> list[tuple[str, str]]:
    """The transitions that a report asks of a unit, each as (from, to).

    A final report may overtake the one of the work's begin; the transition between is then made as
    well. A report that says nothing new, or tells of work on a unit that was never fed, gives none.

    >>> steps_to("queued", "success")
    [('queued', 'processing'), ('processing', 'success')]
    >>> steps_to("success", "processing")
    []

    Args:
        current: the unit's status, one of STATUSES.
        reported: the status that a message tells, one of STATUSES.
    """
    if current not in IN_FLIGHT or reported == PENDING:
        return []
    end = len(_WAY) if reported in FINAL else _WAY.index(reported)
    way = [*_WAY[_WAY.index(current) : end + 1], *([reported] if reported in FINAL else [])]
    return list(zip(way, way[1:], strict=False))
