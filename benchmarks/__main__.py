"""``python -m benchmarks``: all comparisons in one table; takes minutes, on a quiet machine."""

from __future__ import annotations

import argparse

from benchmarks import embedded, ingest, publish
from benchmarks.common import show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="JSON, one comparison a line")
    options = parser.parse_args()
    found = [*publish.figures(options.rounds), *ingest.figures(options.rounds)]
    found += embedded.figures(options.rounds)
    show(found, options.json)


if __name__ == "__main__":
    main()
