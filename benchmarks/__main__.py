"""``python -m benchmarks``: every comparison in one table; takes a quarter of an hour.

``--only results,flower`` runs some of them. What is missing for one of them ends the run with the
command that installs it.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping

from benchmarks import embedded, flower, ingest, ledger_reads, ledger_writes, publish, results
from benchmarks.common import Figure, show

PARTS: Mapping[str, Callable[[int], list[Figure]]] = {
    "publish": publish.figures,
    "ingest": ingest.figures,
    "writes": ledger_writes.figures,
    "results": results.figures,
    "embedded": embedded.figures,
    "reads": lambda rounds: ledger_reads.figures(),
    "flower": lambda rounds: flower.figures(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="JSON, one comparison a line")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"--only: {', '.join(sorted(unknown))}: give some of {', '.join(PARTS)}")
    # As an exception, so that what was made on the services is removed on the way out.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if "flower" in chosen:
        flower.require()  # before an hour is spent
    show([figure for name in chosen for figure in PARTS[name](options.rounds)], options.json)


if __name__ == "__main__":
    main()
