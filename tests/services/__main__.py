"""Run a command with every service there, then stop what was started for it.

Without a command, print where the services are and wait for Ctrl-C.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack
from types import FrameType

from .discovery import ensure
from .servers import MissingProgram


def main(command: list[str]) -> int:
    """Return the exit code of the command; 1 where a service is missing."""
    signal.signal(signal.SIGTERM, _end)
    # A shell starts background jobs with it ignored; the tests could then not be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ExitStack() as stack:
        try:
            variables = ensure(stack, lambda text: print(text, flush=True))
        except (MissingProgram, AssertionError) as error:
            print(f"\n{error}", file=sys.stderr)
            return 1
        if not command:
            for name, value in variables.items():
                print(f"export {name}={shlex.quote(value)}")
            print("Ctrl-C stops what was started.", file=sys.stderr, flush=True)
            _wait_for_interrupt()
            return 0
        return _run(command, {**os.environ, **variables})


def _run(command: list[str], environment: dict[str, str]) -> int:
    print("\n=== Tests ===", flush=True)
    child = subprocess.Popen(command, env=environment)
    while True:
        try:
            code = child.wait()
        except KeyboardInterrupt:
            continue  # The terminal has told the command as well: let it end.
        except SystemExit:
            child.send_signal(signal.SIGINT)  # As Ctrl-C: pytest then tidies up.
            continue
        return code if code >= 0 else 128 - code


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
