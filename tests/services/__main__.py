"""Run a command with every service there, then stop what was started for it.

Several commands, between which ";" stands, run one after the other, also where one fails. Without
a command, print where the services are and wait for Ctrl-C.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack
from itertools import groupby
from types import FrameType

from .discovery import ensure
from .servers import MissingProgram


def main(words: list[str]) -> int:
    """Return the exit code of the first command that failed, or 0; 1 where a service is missing."""
    signal.signal(signal.SIGTERM, _end)
    # A shell starts background jobs with it ignored; the tests could then not be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ExitStack() as stack:
        try:
            variables = ensure(stack, lambda text: print(text, flush=True))
        except (MissingProgram, AssertionError) as error:
            print(f"\n{error}", file=sys.stderr)
            return 1
        if not words:
            for name, value in variables.items():
                print(f"export {name}={shlex.quote(value)}")
            print("Ctrl-C stops what was started.", file=sys.stderr, flush=True)
            _wait_for_interrupt()
            return 0
        return _run_all(words, {**os.environ, **variables})


def _run_all(words: list[str], environment: dict[str, str]) -> int:
    failed = 0
    for is_end, command in groupby(words, ";".__eq__):
        if is_end:
            continue
        code, interrupted = _run(list(command), environment)
        failed = failed or code
        if interrupted:
            break
    return failed


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, bool]:
    """Return the exit code, and whether somebody wants an end of it all."""
    print("\n=== Tests ===", flush=True)
    child = subprocess.Popen(command, env=environment)
    interrupted = False
    while True:
        try:
            code = child.wait()
        except KeyboardInterrupt:
            interrupted = True  # The terminal has told the command as well: let it end.
        except SystemExit:
            interrupted = True
            child.send_signal(signal.SIGINT)  # As Ctrl-C: pytest then tidies up.
        else:
            return code if code >= 0 else 128 - code, interrupted


def _wait_for_interrupt() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass


def _end(number: int, frame: FrameType | None) -> None:
    # As an exception, so that the servers are stopped on the way out.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
