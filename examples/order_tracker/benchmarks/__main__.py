"""Print every figure of the README.

    python -m benchmarks                      all, with 1,000 units a run
    python -m benchmarks --units 10000        the full size
    python -m benchmarks --only feeding       one part

It needs RabbitMQ (with rabbitmqctl) and PostgreSQL; TEST_RABBITMQ_URL and TEST_POSTGRES_URL name
them. It makes a virtual host and databases of its own, and removes them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics

from . import feeding, throughput


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1, help="runs of each, in turn")
    parser.add_argument("--only", choices=["throughput", "tracked", "untracked", "feeding"])
    options = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}; RabbitMQ and PostgreSQL on the same machine\n", flush=True)
    if options.only in {None, "throughput", "tracked", "untracked"}:
        print_throughput(options.units, options.rounds, options.only)
    if options.only in {None, "feeding"}:
        for kind in ("PostgreSQL", "SQLite"):
            short, long = feeding.cost(kind)
            print(
                f"a report that frees a place, {kind}: {short * 1e3:.2f} ms with"
                f" {feeding.SHORT:,} units waiting, {long * 1e3:.2f} ms with {feeding.LONG:,}:"
                f" {long / short:.2f} times (medians of {feeding.ROUNDS})",
                flush=True,
            )


def print_throughput(units: int, rounds: int, only: str | None) -> None:
    """Print the rates, ours and the rival's in turn, and the API's memory."""
    ours: list[throughput.Run] = []
    rivals: list[throughput.Run] = []
    for _ in range(rounds):
        if only != "untracked":
            ours.append(throughput.tracked(units))
            print(
                f"{units:,} units, 2 api, 1 leader, 4 agents, 1 inbox: {ours[-1].rate:.1f} units/s;"
                f" an API process had at most {ours[-1].memory:.0f} MiB",
                flush=True,
            )
        if only != "tracked":
            rivals.append(throughput.untracked(units))
            print(f"the same tasks without tracking: {rivals[-1].rate:.1f} units/s", flush=True)
    if ours and rivals:
        mine, other = (statistics.median(run.rate for run in runs) for runs in (ours, rivals))
        print(f"ratio: {mine / other:.2f} (medians of {rounds})", flush=True)


if __name__ == "__main__":
    main()
