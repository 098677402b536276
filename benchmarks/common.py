"""What the benchmarks share: pairing two rivals, and a table of what came of it."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One comparison: medians over ``rounds`` rounds, ours and the rival's in turn."""

    what: str
    unit: str
    ours: float
    rival: float
    rival_name: str
    ratio: float
    rounds: int


def pair(
    what: str,
    unit: str,
    ours: Callable[[], float],
    rival: Callable[[], float],
    rival_name: str,
    rounds: int = 5,
) -> Figure:
    """Measure both in turn; the ratio is the median of the rounds' own ratios, ours / rival."""
    ours(), rival()  # the first of each makes connections and fills caches
    results = []
    for number in range(rounds):
        if number % 2:  # neither is always the first
            theirs = rival()
            results.append((ours(), theirs))
        else:
            results.append((ours(), rival()))
    return Figure(
        what,
        unit,
        median(a for a, _ in results),
        median(b for _, b in results),
        rival_name,
        median(a / b for a, b in results),
        rounds,
    )


def machine() -> str:
    """What this machine is, in one line."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def show(figures: Sequence[Figure], as_json: bool = False) -> None:
    """Print the figures as a table, or as JSON lines."""
    if as_json:
        for figure in figures:
            print(json.dumps({**asdict(figure), "machine": machine()}))
        return
    print(f"{machine()}; medians, ours and the rival's in turn\n")
    width = max(len(figure.what) for figure in figures)
    print(f"{'what':<{width}}  {'ours':>12}  {'rival':>12}  {'ratio':>6}  n  rival")
    for f in figures:
        ours, rival = (
            f"{value:,.{0 if value >= 10 else 2}f} {f.unit}" for value in (f.ours, f.rival)
        )
        print(
            f"{f.what:<{width}}  {ours:>12}  {rival:>12}  {f.ratio:6.2f}  {f.rounds}  "
            f"{f.rival_name}"
        )
    sys.stdout.flush()
